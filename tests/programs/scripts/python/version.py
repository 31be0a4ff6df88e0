import sys
print(sys.version)
print(sys.executable, sys.argv, sys.flags)

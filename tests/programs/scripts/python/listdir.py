import os
print(sorted(os.listdir('/etc'))[:20])
print(os.getcwd() == os.environ.get('PWD', os.getcwd()))

import os
s = os.stat('/etc/passwd')
print(s.st_size, oct(s.st_mode), s.st_mtime_ns)
print(os.access('/etc', os.W_OK | os.R_OK))

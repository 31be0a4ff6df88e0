import os
for p in ('/nonexistent', '/etc/passwd/x', '/root/\0x'):
    try:
        os.open(p, 0)
    except (OSError, ValueError) as e:
        print(type(e).__name__, e)

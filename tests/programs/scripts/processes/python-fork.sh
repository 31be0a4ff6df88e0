python3 -c 'import os
r, w = os.pipe()
if os.fork() == 0:
 os.write(w, b"child")
 os._exit(6)
print(os.read(r, 9), os.waitstatus_to_exitcode(os.wait()[1]))'

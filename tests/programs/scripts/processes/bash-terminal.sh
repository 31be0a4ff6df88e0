cat > drive.py <<'PYTHON'
import os, pty, sys

child, master = pty.fork()
if child == 0:
    os.environ.update(PS1="% ", TERM="dumb", HISTFILE="/dev/null")
    os.execvp("bash", ["bash", "--norc", "--noprofile", "--noediting", "-i"])

def expect(text):
    got = b""
    while not got.endswith(text):
        got += os.read(master, 1)
    print(got.replace(b"^C", b"").replace(b"^Z", b"")) # whose echo may come after what the shell says of the signal

def type(keys):
    os.write(master, keys)

expect(b"% ")
type(b"echo $((6*7)); tty | tr 0-9 N\n"); expect(b"N\r\n% ")
type(b"cat\n"); expect(b"cat\r\n"); type(b"here\n"); expect(b"here\r\nhere\r\n")
type(b"\x03"); expect(b"% ")
type(b"echo $?\n"); expect(b"130\r\n% ")
type(b"cat\n"); expect(b"cat\r\n"); type(b"ab\x7fc\n"); expect(b"c\r\nac\r\n")
type(b"\x1a"); expect(b"% ")
type(b"jobs\n"); expect(b"cat\r\n% ")
type(b"fg\n"); expect(b"cat\r\n"); type(b"again\n"); expect(b"again\r\nagain\r\n")
type(b"\x04"); expect(b"% ")
type(b"exit 7\n"); expect(b"exit\r\n")
try:
    os.read(master, 1)
except OSError as error:
    print(error)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
PYTHON
python3 drive.py

cat > packets.py <<'PYTHON'
import fcntl, os, pty, select, struct, termios
master, slave = pty.openpty()
fcntl.ioctl(master, termios.TIOCPKT, struct.pack("i", 1))
os.write(slave, b"shown")
print(os.read(master, 100), os.read(slave, 0))
for key in b"\x13", b"\x11":
    os.write(master, key)
    print(select.select([master], [], [master], 100)[2] == [master], os.read(master, 100))
termios.tcflush(slave, termios.TCIOFLUSH)
print(os.read(master, 100))
fcntl.ioctl(master, termios.TIOCPKT, struct.pack("i", 0))
os.write(slave, b"plain")
print(os.read(master, 100))
try:
    fcntl.ioctl(slave, termios.TIOCPKT, struct.pack("i", 1))
except OSError as error:
    print(error)
PYTHON
python3 packets.py

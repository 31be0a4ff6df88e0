python3 -c 'import pty; pty.spawn(["tty"])' | grep -c /dev/pts

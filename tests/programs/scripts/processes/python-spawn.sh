python3 -c 'import os; p = os.posix_spawn("/bin/echo", ["echo", "spawned"], os.environ); print(os.waitpid(p, 0)[1])'

"""The Linux personality: what system calls, exceptions and `execve` mean to a program.

- `exec`: from a path to the first instruction; `binfmt` decides what is in the file, this makes the process of it.
- `syscalls`: the handlers, by area, with their registry and dispatcher; `abi` has the numbers.
- `signal`, `ipc`, `net`, `namespaces`, `tracing`, `seccomp`: what the handlers of these areas work on.
- `proc`: the files of /proc. `strace`: system calls as the tool of that name prints them.
- Beside them: fork and the end of processes (`clone`, `children`, `ending`), descriptors that are no files of a file
  system (`epoll_file`, `timer_file`, `pidfd`...), futexes, cgroups, the vDSO, and what differs between kernels
  (`profile`).

`personality.Linux` is the whole of it as the scheduler sees it.
"""

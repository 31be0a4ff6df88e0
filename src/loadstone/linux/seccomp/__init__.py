"""seccomp(2): programs that decide about the system calls of a thread (kernel/seccomp.c)."""

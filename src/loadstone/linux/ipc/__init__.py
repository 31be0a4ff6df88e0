"""System V objects and POSIX message queues: what an IPC namespace holds."""

"""What system calls do with sockets and network devices."""

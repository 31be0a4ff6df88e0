"""Which module has the handler of which system call. A test compares this with what the modules define."""

from __future__ import annotations

_NAMES = {
    "memory": """mmap munmap mprotect mremap brk madvise mincore msync mlock mlock2 munlock mlockall munlockall
        membarrier mseal remap_file_pages""",
    "process": """getpid gettid getppid exit exit_group execve execveat
        set_tid_address set_robust_list get_robust_list rseq arch_prctl personality setpgid getpgid getpgrp
        getsid setsid restart_syscall""",
    "prctl": """prctl""",
    "forking": """fork vfork clone clone3""",
    "waiting": """wait4 waitid""",
    "comparing": """kcmp""",
    "pidfds": """pidfd_open pidfd_send_signal pidfd_getfd""",
    "identity": """getuid geteuid getgid getegid setuid setgid setreuid setregid setresuid setresgid getresuid
        getresgid setfsuid setfsgid getgroups setgroups capget capset""",
    "limits": """prlimit64 getrlimit setrlimit getrusage getpriority setpriority""",
    "scheduling": """sched_yield sched_getaffinity sched_setaffinity sched_getscheduler sched_setscheduler
        sched_getparam sched_setparam sched_getattr sched_setattr sched_get_priority_max sched_get_priority_min
        sched_rr_get_interval getcpu""",
    "ioprio": """ioprio_set ioprio_get""",
    "info": """uname sethostname setdomainname sysinfo times getrandom""",
    "sysv_shm": """shmget shmat shmdt shmctl""",
    "sysv_sem": """semget semop semtimedop semctl""",
    "sysv_msg": """msgget msgsnd msgrcv msgctl""",
    "posix_mq": """mq_open mq_unlink mq_timedsend mq_timedreceive mq_notify mq_getsetattr""",
    "futex": """futex""",
    "futex2": """futex_waitv futex_wait futex_wake futex_requeue""",
    "time": """clock_gettime clock_getres clock_settime clock_nanosleep nanosleep gettimeofday time""",
    "timers": """alarm setitimer getitimer timer_create timer_settime timer_gettime timer_getoverrun timer_delete""",
    "signal": """kill tkill tgkill rt_sigaction rt_sigprocmask rt_sigreturn rt_sigpending rt_sigsuspend
        rt_sigtimedwait rt_sigqueueinfo rt_tgsigqueueinfo sigaltstack pause""",
    # files of the guest
    "opening": """open openat openat2 creat close close_range memfd_create""",
    "readwrite": """read write pread64 pwrite64 readv writev preadv pwritev preadv2 pwritev2 lseek""",
    "copying": """sendfile copy_file_range""",
    "splicing": """splice tee vmsplice""",
    "storage": """truncate ftruncate fallocate fsync fdatasync sync syncfs sync_file_range readahead fadvise64""",
    "directories": """getcwd chdir fchdir chroot mkdir mkdirat rmdir rename renameat renameat2 link linkat symlink
        symlinkat unlink unlinkat readlink readlinkat mknod mknodat getdents getdents64 umask""",
    "status": """stat fstat lstat newfstatat statx statfs fstatfs access faccessat faccessat2""",
    "attributes": """chmod fchmod fchmodat fchmodat2 chown fchown lchown fchownat utime utimes futimesat utimensat""",
    "extended": """getxattr lgetxattr fgetxattr listxattr llistxattr flistxattr setxattr lsetxattr fsetxattr
        removexattr lremovexattr fremovexattr""",
    "descriptors": """dup dup2 dup3 fcntl""",
    "locks": """flock""",
    "ioctl": """ioctl""",
    "pipes": """pipe pipe2""",
    "poll": """poll ppoll select pselect6""",
    "event_files": """timerfd_create timerfd_settime timerfd_gettime signalfd signalfd4""",
    "epoll": """epoll_create epoll_create1 epoll_ctl epoll_wait epoll_pwait epoll_pwait2 eventfd eventfd2""",
    "inotify": """inotify_init inotify_init1 inotify_add_watch inotify_rm_watch""",
    "sockets": """socket socketpair bind listen accept accept4 connect getsockname getpeername shutdown""",
    "messages": """sendto recvfrom sendmsg recvmsg sendmmsg recvmmsg""",
    "socket_options": """setsockopt getsockopt""",
    "mounting": """mount umount2 pivot_root""",
    "mount_api": """fsopen fsconfig fsmount move_mount open_tree mount_setattr""",
    "absent": """get_mempolicy set_mempolicy set_mempolicy_home_node mbind migrate_pages move_pages
        pkey_alloc pkey_free pkey_mprotect""",
    "refused": """swapon swapoff reboot acct settimeofday adjtimex
        clock_adjtime init_module finit_module delete_module kexec_load kexec_file_load bpf open_by_handle_at
        syslog iopl ioperm vhangup quotactl""",
    "unsharing": """unshare setns""",
    "tracing": """ptrace""",
    "seccomp": """seccomp""",
    "other_memory": """process_vm_readv process_vm_writev""",
    "userfaulting": """userfaultfd""",
}

AREAS = {name: area for area, names in _NAMES.items() for name in names.split()}

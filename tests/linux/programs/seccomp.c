/* seccomp(2): what filters accept and decide, who may attach them, who inherits them, and what is answered for them. */
#include "check.h"
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/user.h>

#define LOAD(field) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
#define RETURN(value) BPF_STMT(BPF_RET | BPF_K, (value))
#define ON(number, value) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (number), 0, 1), RETURN(value)
#define ALLOW RETURN(SECCOMP_RET_ALLOW)
#define ATTACH(flags, ...)                                                                                             \
  ({                                                                                                                   \
    struct sock_filter code_[] = {__VA_ARGS__};                                                                        \
    struct sock_fprog program_ = {sizeof code_ / sizeof *code_, code_};                                                \
    syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, (flags), &program_);                                                 \
  })
/* Attach a filter that decides about one call and allows the others. */
#define DECIDE(number, value) ATTACH(0, LOAD(nr), ON(number, value), ALLOW)

static void result(const char *what, int status) {
  if (WIFSIGNALED(status))
    printf("%s: killed by %s\n", what, strsignal(WTERMSIG(status)));
  else
    printf("%s: exit %d\n", what, WEXITSTATUS(status));
}

/* Run a scenario in a process of its own. */
static void in_child(const char *what, void (*scenario)(void)) {
  int status;
  pid_t pid;
  fflush(stdout);
  if ((pid = fork()) == 0) {
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    scenario();
    fflush(stdout);
    _exit(0);
  }
  waitpid(pid, &status, 0);
  result(what, status);
}

static void show_status(void) {
  char line[128];
  FILE *file = fopen("/proc/thread-self/status", "r");
  while (fgets(line, sizeof line, file))
    if (!strncmp(line, "Seccomp", 7) || !strncmp(line, "NoNewPrivs", 10)) fputs(line, stdout);
  fclose(file);
}

static void arguments(void) {
  struct sock_fprog none = {0, NULL}, nowhere = {1, NOWHERE}, null = {1, NULL};
  unsigned actions[] = {SECCOMP_RET_KILL_PROCESS, SECCOMP_RET_KILL_THREAD, SECCOMP_RET_TRAP,
                        SECCOMP_RET_ERRNO,        SECCOMP_RET_USER_NOTIF,  SECCOMP_RET_TRACE,
                        SECCOMP_RET_LOG,          SECCOMP_RET_ALLOW,       SECCOMP_RET_ERRNO | 1};
  struct seccomp_notif_sizes sizes;
  for (unsigned i = 0; i < sizeof actions / sizeof *actions; i++) T(S(seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &actions[i]));
  T(S(seccomp, SECCOMP_GET_ACTION_AVAIL, 1, &actions[0]));
  T(S(seccomp, SECCOMP_GET_ACTION_AVAIL, 0, NOWHERE));
  T(S(seccomp, SECCOMP_GET_NOTIF_SIZES, 0, &sizes));
  printf("%d %d %d\n", sizes.seccomp_notif, sizes.seccomp_notif_resp, sizes.seccomp_data);
  T(S(seccomp, SECCOMP_GET_NOTIF_SIZES, 2, &sizes));
  T(S(seccomp, SECCOMP_GET_NOTIF_SIZES, 0, NOWHERE));
  T(S(seccomp, 4, 0, NULL));
  T(S(seccomp, SECCOMP_SET_MODE_STRICT, 1, NULL));
  T(S(seccomp, SECCOMP_SET_MODE_STRICT, 0, &none));
  T(S(seccomp, SECCOMP_SET_MODE_FILTER, 0, NOWHERE));
  T(S(seccomp, SECCOMP_SET_MODE_FILTER, 0, &none));
  T(S(seccomp, SECCOMP_SET_MODE_FILTER, 0, &nowhere));
  T(S(seccomp, SECCOMP_SET_MODE_FILTER, 0, &null));
  for (int shift = 5; shift < 8; shift++) T(S(seccomp, SECCOMP_SET_MODE_FILTER, 1 << shift, &none));
  T(S(seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC | SECCOMP_FILTER_FLAG_NEW_LISTENER, &none));
  T(prctl(PR_GET_SECCOMP, 1, 2, 3, 4));
  T(prctl(PR_SET_SECCOMP, 0, 0, 0, 0));
  T(prctl(PR_SET_SECCOMP, 3, 0, 0, 0));
  T(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &none, 7, 7));
  T(prctl(PR_SET_NO_NEW_PRIVS, 0, 0, 0, 0));
  T(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 1));
  T(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0));
  T(prctl(PR_GET_NO_NEW_PRIVS, 1, 0, 0, 0));
}

/* Without no_new_privs only CAP_SYS_ADMIN may. The caller has set it: another user has a new process for that. */
static void privilege(void) {
  T(setresuid(65534, 65534, 65534));
  T(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0));
  T(DECIDE(SYS_getppid, SECCOMP_RET_ERRNO | EPERM));
  T(S(seccomp, SECCOMP_SET_MODE_FILTER, 0, NOWHERE));
  struct sock_filter bad = {0xFFFF, 0, 0, 0};
  struct sock_fprog program = {1, &bad};
  T(S(seccomp, SECCOMP_SET_MODE_FILTER, 0, &program));
  program.len = 5000;
  T(S(seccomp, SECCOMP_SET_MODE_FILTER, 0, &program));
  T(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
  T(DECIDE(SYS_getppid, SECCOMP_RET_ERRNO | EPERM));
  T(S(getppid));
}

static void errors(void) {
  T(DECIDE(SYS_getppid, SECCOMP_RET_ERRNO | EACCES));
  T(S(getppid));
  T(DECIDE(SYS_getpid, SECCOMP_RET_ERRNO));
  T(S(getpid));
  T(DECIDE(SYS_getuid, SECCOMP_RET_ERRNO | 0xFFFF));
  printf("%ld %d\n", S(getuid), errno);
  T(DECIDE(SYS_getgid, SECCOMP_RET_LOG | 5));
  printf("%d\n", S(getgid) == getgid());
  T(DECIDE(SYS_getegid, SECCOMP_RET_TRACE | 5));
  T(S(getegid));
  T(DECIDE(SYS_geteuid, SECCOMP_RET_USER_NOTIF | 5));
  T(S(geteuid));
  T(DECIDE(1000, SECCOMP_RET_ERRNO | ENOTTY));
  T(syscall(1000));
  T(DECIDE((unsigned)-1, SECCOMP_RET_ERRNO | EDOM));
  T(syscall(-1));
  show_status();
}

/* The most severe action of all filters counts, and of several of a kind the newest. */
static void precedence(void) {
  DECIDE(SYS_getppid, SECCOMP_RET_ERRNO | 1);
  DECIDE(SYS_getppid, SECCOMP_RET_TRACE | 2);
  DECIDE(SYS_getppid, SECCOMP_RET_ERRNO | 3);
  DECIDE(SYS_getppid, SECCOMP_RET_LOG | 4);
  DECIDE(SYS_getppid, SECCOMP_RET_USER_NOTIF | 5);
  T(S(getppid));
}

static void by_arguments(void) {
  T(ATTACH(0, LOAD(nr), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_lseek, 1, 0), ALLOW, LOAD(arch),
           BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 1, 0), RETURN(SECCOMP_RET_ERRNO | EILSEQ),
           BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[1]) + 4),
           BPF_STMT(BPF_ALU | BPF_AND | BPF_K, 0xFF), BPF_STMT(BPF_ALU | BPF_OR | BPF_K, SECCOMP_RET_ERRNO),
           BPF_STMT(BPF_RET | BPF_A, 0)));
  for (long number = 1; number < 4; number++) T(S(lseek, 0, number << 32, 7));
}

static void on_trap(int number, siginfo_t *info, void *where) {
  ucontext_t *context = where;
  greg_t *registers = context->uc_mcontext.gregs;
  printf("signal %d code %d errno %d call %d arch %x, %d, rax %lld\n", number, info->si_code, info->si_errno,
         info->si_syscall, info->si_arch, (long)info->si_call_addr == registers[REG_RIP], registers[REG_RAX]);
  registers[REG_RAX] = 4711;
}

static void trap(void) {
  struct sigaction action = {.sa_sigaction = on_trap, .sa_flags = SA_SIGINFO};
  sigaction(SIGSYS, &action, NULL);
  T(DECIDE(SYS_getppid, SECCOMP_RET_TRAP | 0x8001));
  T(S(getppid));
  T(DECIDE((unsigned)-3, SECCOMP_RET_TRAP | 9));
  T(syscall(-3));
}

static void trap_blocked(void) {
  sigset_t set;
  signal(SIGSYS, SIG_IGN);
  sigemptyset(&set);
  sigaddset(&set, SIGSYS);
  sigprocmask(SIG_BLOCK, &set, NULL);
  DECIDE(SYS_getppid, SECCOMP_RET_TRAP);
  S(getppid);
}

static void ignore(int number) { _exit(99); }

static void kill_process(void) {
  signal(SIGSYS, ignore);
  DECIDE(SYS_getppid, SECCOMP_RET_KILL_PROCESS);
  S(getppid);
}

static void kill_thread(void) {
  DECIDE(SYS_getppid, SECCOMP_RET_KILL_THREAD);
  S(getppid);
}

static void unknown_action(void) {
  DECIDE(SYS_getppid, 0x00010000);
  S(getppid);
}

static void *ask_parent(void *unused) {
  S(getppid);
  return NULL;
}

static void kill_one_thread(void) {
  pthread_t thread;
  DECIDE(SYS_getppid, SECCOMP_RET_KILL_THREAD);
  pthread_create(&thread, NULL, ask_parent, NULL);
  /* its end is told by the kernel, as for all threads; what it returned, by nobody */
  T(pthread_join(thread, NULL));
}

static void strict(void) {
  T(prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT, NOWHERE, 3, 4));
  fflush(stdout);
  S(exit, 5);
}

static void strict_forbidden(void) {
  S(seccomp, SECCOMP_SET_MODE_STRICT, 0, NULL);
  S(getpid);
}

static void strict_after_filter(void) {
  DECIDE(SYS_getppid, SECCOMP_RET_ERRNO);
  T(S(seccomp, SECCOMP_SET_MODE_STRICT, 0, NULL));
  T(prctl(PR_GET_SECCOMP));
}

static void inherited(void) {
  int status;
  DECIDE(SYS_getppid, SECCOMP_RET_ERRNO | ENOANO);
  fflush(stdout);
  if (fork() == 0) {
    T(S(getppid));
    show_status();
    fflush(stdout);
    execl("/proc/self/exe", "seccomp", "executed", NULL);
  }
  wait(&status);
  result("child", status);
}

/* What a core might answer by itself is filtered as well, before and behind exec. */
static void answered_calls(void) {
  char text[16];
  int fd = open("/proc/self/exe", O_RDONLY);
  struct sigaction action;
  sigset_t set;
  for (int i = 0; i < 3; i++) {
    printf("%ld %ld %ld ", S(getpid), S(gettid), S(set_tid_address, NULL));
    printf("%d ", errno);
    printf("%ld %ld ", S(brk, 0), S(set_robust_list, NULL, 24));
    printf("%zd %ld ", read(fd, text, 4), S(rt_sigprocmask, SIG_BLOCK, NULL, &set, 8));
    printf("%ld ", S(rt_sigaction, SIGUSR1, NULL, &action, 8));
    printf("%ld %d\n", S(close, fd), errno);
  }
}

static void answered(void) {
  char text[4];
  int fd = open("/proc/self/exe", O_RDONLY);
  sigset_t set;
  for (int i = 0; i < 8; i++) {
    read(fd, text, 4);
    S(rt_sigprocmask, SIG_BLOCK, NULL, &set, 8);
  }
  ATTACH(0, LOAD(nr), ON(SYS_getpid, SECCOMP_RET_ERRNO | 1), ON(SYS_gettid, SECCOMP_RET_ERRNO | 2),
         ON(SYS_set_tid_address, SECCOMP_RET_ERRNO | 3), ON(SYS_set_robust_list, SECCOMP_RET_ERRNO | 4),
         ON(SYS_rt_sigprocmask, SECCOMP_RET_ERRNO | 5), ON(SYS_rt_sigaction, SECCOMP_RET_ERRNO | 6),
         ON(SYS_close, SECCOMP_RET_ERRNO | 7), ON(SYS_brk, SECCOMP_RET_ERRNO | 8), ALLOW);
  DECIDE(SYS_read, SECCOMP_RET_ERRNO | 9);
  answered_calls();
  fflush(stdout);
  if (fork() == 0) {
    answered_calls();
    fflush(stdout);
    _exit(0);
  }
  wait(NULL);
}

static void *other_thread(void *pipe) {
  char byte;
  read(*(int *)pipe, &byte, 1);
  T(S(getppid));
  show_status();
  return NULL;
}

static void all_threads(void) {
  int ends[2];
  pthread_t thread;
  pipe(ends);
  pthread_create(&thread, NULL, other_thread, ends);
  T(ATTACH(SECCOMP_FILTER_FLAG_TSYNC, LOAD(nr), ON(SYS_getppid, SECCOMP_RET_ERRNO | EUSERS), ALLOW));
  T(ATTACH(SECCOMP_FILTER_FLAG_LOG, LOAD(nr), ON(SYS_getuid, SECCOMP_RET_ERRNO | EUSERS), ALLOW));
  T(ATTACH(SECCOMP_FILTER_FLAG_TSYNC | SECCOMP_FILTER_FLAG_SPEC_ALLOW, LOAD(nr), ALLOW));
  write(ends[1], "", 1);
  pthread_join(thread, NULL);
}

static void *with_own_filter(void *ends) {
  char byte;
  DECIDE(SYS_getuid, SECCOMP_RET_ERRNO | 1);
  write(((int *)ends)[3], "", 1);
  read(((int *)ends)[0], &byte, 1);
  return NULL;
}

static void other_threads_differ(void) {
  int ends[4];
  char byte;
  pthread_t thread;
  pipe(ends);
  pipe(ends + 2);
  pthread_create(&thread, NULL, with_own_filter, ends);
  read(ends[2], &byte, 1);
  printf("%d\n", ATTACH(SECCOMP_FILTER_FLAG_TSYNC, ALLOW) > 0);
  T(ATTACH(SECCOMP_FILTER_FLAG_TSYNC | SECCOMP_FILTER_FLAG_TSYNC_ESRCH, ALLOW));
  T(prctl(PR_GET_SECCOMP));
  write(ends[1], "", 1);
  pthread_join(thread, NULL);
}

static void too_much(void) {
  static struct sock_filter code[4096];
  struct sock_fprog program = {4096, code};
  for (int i = 0; i < 4096; i++) code[i] = (struct sock_filter)RETURN(SECCOMP_RET_ALLOW);
  for (int i = 0; i < 5; i++) T(S(seccomp, SECCOMP_SET_MODE_FILTER, 0, &program));
  program.len = 1;
  T(S(seccomp, SECCOMP_SET_MODE_FILTER, 0, &program));
}

static void settings(void) {
  show("/proc/sys/kernel/seccomp/actions_avail");
  show("/proc/sys/kernel/seccomp/actions_logged");
}

/* A child that attaches a filter with a listener and sends it to us. */
static int listener_of(pid_t *pid, int number, unsigned flags, void (*then)(void)) {
  int ends[2], fd;
  socketpair(AF_UNIX, SOCK_STREAM, 0, ends);
  fflush(stdout);
  if ((*pid = fork()) == 0) {
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    fd = ATTACH(SECCOMP_FILTER_FLAG_NEW_LISTENER | flags, LOAD(nr), ON(number, SECCOMP_RET_USER_NOTIF), ALLOW);
    char control[CMSG_SPACE(sizeof fd)] = {0};
    struct iovec one = {"", 1};
    struct msghdr message = {.msg_iov = &one, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    *header = (struct cmsghdr){CMSG_LEN(sizeof fd), SOL_SOCKET, SCM_RIGHTS};
    memcpy(CMSG_DATA(header), &fd, sizeof fd);
    sendmsg(ends[1], &message, 0);
    close(fd);
    then();
    fflush(stdout);
    _exit(0);
  }
  char byte, control[CMSG_SPACE(sizeof fd)];
  struct iovec one = {&byte, 1};
  struct msghdr message = {.msg_iov = &one, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
  recvmsg(ends[0], &message, 0);
  memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof fd);
  close(ends[0]);
  close(ends[1]);
  return fd;
}

static void ask_five_times(void) {
  for (int i = 0; i < 5; i++) T(S(sync_file_range, 11, 22, 33, 44));
}

static int polled(int fd) {
  struct pollfd one = {fd, POLLIN | POLLOUT, 0};
  poll(&one, 1, -1);
  return one.revents;
}

static void listener(void) {
  struct seccomp_notif request = {.pid = 1};
  struct seccomp_notif_resp response = {0};
  char text[64] = "";
  pid_t pid;
  int status, fd = listener_of(&pid, SYS_sync_file_range, 0, ask_five_times);
  sprintf(text, "/proc/self/fd/%d", fd);
  readlink(text, text, sizeof text);
  printf("%s, close on exec %d, %x\n", text, fcntl(fd, F_GETFD), fcntl(fd, F_GETFL));
  printf("poll %x\n", polled(fd));
  T(ioctl(fd, SECCOMP_IOCTL_NOTIF_RECV, &request));
  T(ioctl(fd, SECCOMP_IOCTL_NOTIF_RECV, NOWHERE));
  request.pid = 0;
  T(ioctl(fd, SECCOMP_IOCTL_NOTIF_RECV, &request));
  printf("poll %x pid %d flags %d nr %d arch %x:", polled(fd), request.pid == pid, request.flags, request.data.nr,
         request.data.arch);
  for (int i = 0; i < 4; i++) printf(" %lld", request.data.args[i]);
  printf("\n");
  T(ioctl(fd, SECCOMP_IOCTL_NOTIF_ID_VALID, &request.id));
  response.id = request.id + 1;
  T(ioctl(fd, SECCOMP_IOCTL_NOTIF_ID_VALID, &response.id));
  T(ioctl(fd, SECCOMP_IOCTL_NOTIF_SEND, &response));
  response.id = request.id;
  response.flags = 2;
  T(ioctl(fd, SECCOMP_IOCTL_NOTIF_SEND, &response));
  response.flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE;
  response.val = 1;
  T(ioctl(fd, SECCOMP_IOCTL_NOTIF_SEND, &response));
  response.flags = 0;
  response.val = 1234567890123;
  T(ioctl(fd, SECCOMP_IOCTL_NOTIF_SEND, &response));
  for (int answer = 0; answer < 3; answer++) {
    memset(&request, 0, sizeof request);
    T(ioctl(fd, SECCOMP_IOCTL_NOTIF_RECV, &request));
    response = (struct seccomp_notif_resp){.id = request.id};
    if (answer == 0) response.error = -EXFULL;
    if (answer == 1) response.flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE;
    T(ioctl(fd, SECCOMP_IOCTL_NOTIF_SEND, &response));
  }
  memset(&request, 0, sizeof request);
  T(ioctl(fd, SECCOMP_IOCTL_NOTIF_RECV, &request));
  T(ioctl(fd, 0x12345678, &request));
  close(fd);
  waitpid(pid, &status, 0);
  result("listened to", status);
}

static void ask_for_descriptors(void) {
  long got = S(sync_file_range, 1, 2, 3, 4);
  char text[8] = "";
  printf("got %d, reads %zd, close on exec %d %d\n", got > 2, read(got, text, 7), fcntl(got, F_GETFD), fcntl(77, F_GETFD));
  printf("%s\n", text);
  T(S(sync_file_range, 1, 2, 3, 4));
}

static void add_descriptors(void) {
  struct seccomp_notif request = {0};
  struct seccomp_notif_addfd addition = {0};
  pid_t pid;
  int status, ends[2], fd = listener_of(&pid, SYS_sync_file_range, 0, ask_for_descriptors);
  pipe(ends);
  write(ends[1], "through", 7);
  T(ioctl(fd, SECCOMP_IOCTL_NOTIF_RECV, &request));
  T(ioctl(fd, SECCOMP_IOCTL_NOTIF_ADDFD, &addition));
  addition = (struct seccomp_notif_addfd){.id = request.id, .srcfd = ends[0], .newfd = 77};
  T(ioctl(fd, SECCOMP_IOCTL_NOTIF_ADDFD, &addition));
  addition.flags = SECCOMP_ADDFD_FLAG_SETFD | 64;
  T(ioctl(fd, SECCOMP_IOCTL_NOTIF_ADDFD, &addition));
  addition.flags = SECCOMP_ADDFD_FLAG_SETFD;
  addition.newfd_flags = O_CLOEXEC | O_APPEND;
  T(ioctl(fd, SECCOMP_IOCTL_NOTIF_ADDFD, &addition));
  addition.newfd_flags = O_CLOEXEC;
  T(ioctl(fd, SECCOMP_IOCTL_NOTIF_ADDFD, &addition));
  addition.newfd = 1 << 30;
  T(ioctl(fd, SECCOMP_IOCTL_NOTIF_ADDFD, &addition));
  T(ioctl(fd, _IOC(_IOC_WRITE, '!', 3, 16), &addition));
  addition = (struct seccomp_notif_addfd){.id = request.id, .srcfd = ends[0], .flags = SECCOMP_ADDFD_FLAG_SEND};
  printf("%d\n", ioctl(fd, SECCOMP_IOCTL_NOTIF_ADDFD, &addition) > 2);
  memset(&request, 0, sizeof request);
  T(ioctl(fd, SECCOMP_IOCTL_NOTIF_RECV, &request));
  kill(pid, SIGKILL);
  waitpid(pid, &status, 0);
  result("killed while it asked", status);
  T(ioctl(fd, SECCOMP_IOCTL_NOTIF_ID_VALID, &request.id));
  printf("poll %x\n", polled(fd));
}

static void two_listeners(void) {
  printf("%d\n", ATTACH(SECCOMP_FILTER_FLAG_NEW_LISTENER, LOAD(nr), ALLOW) > 2);
  T(ATTACH(SECCOMP_FILTER_FLAG_NEW_LISTENER, LOAD(nr), ALLOW));
}

static long asked(pid_t pid, int request, long address, void *data) { return syscall(SYS_ptrace, request, pid, address, data); }

/* A tracer hears of calls by filters, changes them, and reads the filters. */
static void traced(void) {
  unsigned long message;
  struct user_regs_struct registers;
  struct __ptrace_syscall_info info;
  struct sock_filter code[16];
  struct { unsigned long number, flags; } metadata = {0, 9};
  int status;
  pid_t pid;
  fflush(stdout);
  int self = getpid();
  if ((pid = fork()) == 0) {
    ptrace(PTRACE_TRACEME);
    raise(SIGSTOP);
    ATTACH(SECCOMP_FILTER_FLAG_LOG, LOAD(nr), ON(SYS_getppid, SECCOMP_RET_TRACE | 0x1234), ALLOW);
    for (int i = 0; i < 4; i++) {
      long parent = S(getppid);
      printf("%ld %d\n", parent == self ? 0 : parent, errno);
    }
    fflush(stdout);
    DECIDE(SYS_getppid, SECCOMP_RET_KILL_PROCESS);
    S(getppid);
  }
  waitpid(pid, &status, 0);
  T(asked(pid, PTRACE_SETOPTIONS, 0, (void *)(PTRACE_O_TRACESECCOMP | PTRACE_O_TRACESYSGOOD)));
  for (int stop = 0;; stop++) {
    ptrace(PTRACE_CONT, pid, 0, 0);
    waitpid(pid, &status, 0);
    if (!WIFSTOPPED(status)) break;
    ptrace(PTRACE_GETEVENTMSG, pid, 0, &message);
    ptrace(PTRACE_GETREGS, pid, 0, &registers);
    printf("stop %x message %lx orig_rax %lld rax %lld\n", status, message, registers.orig_rax, registers.rax);
    memset(&info, 0, sizeof info);
    long size = asked(pid, PTRACE_GET_SYSCALL_INFO, sizeof info, &info);
    printf("info %ld: op %d arch %x nr %lld data %x\n", size, info.op, info.arch, info.seccomp.nr, info.seccomp.ret_data);
    if (stop == 1) registers.orig_rax = SYS_getpgid, registers.rdi = 0x7FFFFFFF;
    if (stop == 2) registers.orig_rax = -1, registers.rax = 42;
    if (stop == 3) registers.orig_rax = -2, registers.rax = 43;
    if (stop) ptrace(PTRACE_SETREGS, pid, 0, &registers);
    if (stop) continue;
    T(asked(pid, PTRACE_SECCOMP_GET_FILTER, 0, NULL));
    T(asked(pid, PTRACE_SECCOMP_GET_FILTER, 0, code));
    printf("%x %x %x\n", code[0].code, code[1].k, code[2].k);
    T(asked(pid, PTRACE_SECCOMP_GET_FILTER, 1, NULL));
    T(asked(pid, PTRACE_SECCOMP_GET_METADATA, sizeof metadata, &metadata));
    T(asked(pid, PTRACE_SECCOMP_GET_METADATA, 4, &metadata));
    printf("flags %lx\n", metadata.flags);
  }
  result("traced", status);
}

/* A tracer's PTRACE_SYSCALL stop comes before the filter, which sees what the tracer has made of the call. */
static void traced_before_filter(void) {
  struct user_regs_struct registers;
  int status;
  pid_t pid;
  fflush(stdout);
  if ((pid = fork()) == 0) {
    DECIDE(SYS_getppid, SECCOMP_RET_ERRNO | ENOSTR);
    ptrace(PTRACE_TRACEME);
    raise(SIGSTOP);
    S(getpgid, 0);
    _exit(0);
  }
  waitpid(pid, &status, 0);
  for (int stop = 0; ptrace(PTRACE_SYSCALL, pid, 0, 0) == 0; stop++) {
    waitpid(pid, &status, 0);
    if (!WIFSTOPPED(status)) break;
    ptrace(PTRACE_GETREGS, pid, 0, &registers);
    printf("orig_rax %lld rax %lld\n", registers.orig_rax, registers.rax);
    if (registers.orig_rax == SYS_getpgid && registers.rax == -ENOSYS) {
      registers.orig_rax = SYS_getppid;
      ptrace(PTRACE_SETREGS, pid, 0, &registers);
    }
  }
  result("traced", status);
}

/* The calls at fixed addresses: filters see them as calls that are made where they stand. */
static void at_fixed_addresses(void) {
  long (*seconds)(long *) = (void *)0xffffffffff600400;
  struct sigaction action = {.sa_sigaction = on_trap, .sa_flags = SA_SIGINFO};
  char line[256];
  int there = 0;
  FILE *file = fopen("/proc/self/maps", "r");
  while (fgets(line, sizeof line, file)) there |= strstr(line, "[vsyscall]") != NULL;
  fclose(file);
  if (!there) return;
  sigaction(SIGSYS, &action, NULL);
  DECIDE(SYS_time, SECCOMP_RET_LOG);
  printf("%d\n", seconds(NULL) > 0);
  DECIDE(SYS_time, SECCOMP_RET_TRACE);
  printf("%ld\n", seconds(NULL));
  DECIDE(SYS_time, SECCOMP_RET_ERRNO | 5);
  printf("%ld\n", seconds(NULL));
  DECIDE(SYS_time, SECCOMP_RET_TRAP | 6);
  printf("%ld\n", seconds(NULL));
}

static const struct {
  const char *name;
  void (*run)(void);
} scenarios[] = {
    {"arguments", arguments},
    {"errors", errors},
    {"precedence", precedence},
    {"by arguments", by_arguments},
    {"trap", trap},
    {"trap, blocked", trap_blocked},
    {"kill process", kill_process},
    {"kill thread", kill_thread},
    {"unknown action", unknown_action},
    {"kill one thread", kill_one_thread},
    {"strict", strict},
    {"strict, forbidden call", strict_forbidden},
    {"strict after a filter", strict_after_filter},
    {"inherited", inherited},
    {"all threads", all_threads},
    {"other threads differ", other_threads_differ},
    {"too much", too_much},
    {"settings", settings},
    {"listener", listener},
    {"descriptors", add_descriptors},
    {"two listeners", two_listeners},
    {"at fixed addresses", at_fixed_addresses},
    {"traced", traced},
    {"traced before the filter", traced_before_filter},
};

int main(int count, char **names) {
  int status;
  if (count > 1 && !strcmp(names[1], "executed")) {
    T(S(getppid));
    show_status();
    return 7;
  }
  if (count > 1 && !strcmp(names[1], "answered")) {
    in_child("answered", answered);
    return 0;
  }
  setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
  fflush(stdout);
  if (fork() == 0) {
    if (getuid() == 0) privilege();
    fflush(stdout);
    _exit(0);
  }
  wait(&status);
  for (unsigned i = 0; i < sizeof scenarios / sizeof *scenarios; i++) in_child(scenarios[i].name, scenarios[i].run);
  return 0;
}

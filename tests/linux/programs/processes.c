#include "check.h"
#include <linux/sched.h>
#include <sched.h>
#include <sys/prctl.h>

#ifndef P_PIDFD
#define P_PIDFD 3
#endif

/* Numbers of processes differ from run to run: what is printed is whether they are the ones expected. */
static void report(const char *what, int ok) { printf("     %s: %s\n", what, ok ? "yes" : "NO"); }

static void status(int s) {
  if (WIFEXITED(s)) printf("     exited %d\n", WEXITSTATUS(s));
  else if (WIFSIGNALED(s)) printf("     killed by %d\n", WTERMSIG(s));
  else if (WIFSTOPPED(s)) printf("     stopped by %d\n", WSTOPSIG(s));
  else if (WIFCONTINUED(s)) printf("     continued\n");
}

static void info(siginfo_t *i, pid_t child) {
  printf("     signo %d errno %d code %d status %d child %d uid %d\n", i->si_signo, i->si_errno, i->si_code,
         i->si_status, i->si_pid == child, i->si_uid == getuid());
}

static pid_t child(int code) {
  fflush(stdout);
  pid_t p = fork();
  if (p == 0) _exit(code);
  return p;
}

static pid_t sleeper(void) {
  fflush(stdout);
  pid_t p = fork();
  if (p == 0)
    for (;;) pause();
  return p;
}

static void waits(void) {
  int s = -1;
  siginfo_t i;
  T(wait(&s));
  T(waitpid(-1, &s, WNOHANG));
  T(waitpid(999999, &s, 0));
  T(S(wait4, -1, &s, 0x100, 0));
  T(S(wait4, (int)0x80000000, &s, 0, 0));
  T(waitid(P_ALL, 0, &i, 0));
  T(waitid(P_PID, 0, &i, WEXITED));
  T(waitid(9, 1, &i, WEXITED));
  T(waitid(P_PGID, -5, &i, WEXITED));
  T(waitid(P_PIDFD, 0, &i, WEXITED));
  pid_t a = child(7), b = child(300);
  memset(&i, 0, sizeof i);
  T(waitid(P_PID, a, &i, WEXITED | WNOWAIT));
  info(&i, a);
  T(waitid(P_PID, a, &i, WSTOPPED | WNOHANG));
  printf("     pid %d signo %d\n", i.si_pid, i.si_signo);
  report("first", waitpid(a, &s, 0) == a);
  status(s);
  report("any", wait(&s) == b);
  status(s);
  T(kill(a, 0));
  struct rusage u;
  memset(&u, 255, sizeof u);
  a = child(0);
  report("usage", wait4(a, &s, 0, &u) == a);
  report("faults", u.ru_minflt > 0);
  report("peak", u.ru_maxrss > 0);
  a = sleeper();
  T(kill(a, SIGTERM));
  report("term", waitpid(a, &s, 0) == a);
  status(s);
  a = child(1);
  T(S(wait4, a, (int *)8, 0, 0));
  T(wait(&s));
  report("group", (a = child(4)) > 0 && waitpid(0, &s, 0) == a);
  report("other group", waitpid(-getpgrp(), &s, 0) == -1);
}

static void stops(void) {
  int s;
  siginfo_t i;
  pid_t a = sleeper();
  memset(&i, 0, sizeof i);
  T(kill(a, SIGSTOP));
  report("stopped", waitpid(a, &s, WUNTRACED) == a);
  status(s);
  T(waitpid(a, &s, WUNTRACED | WNOHANG));
  T(kill(a, SIGCONT));
  T(waitid(P_PID, a, &i, WCONTINUED));
  info(&i, a);
  T(kill(a, SIGSTOP));
  T(waitid(P_PID, a, &i, WSTOPPED));
  info(&i, a);
  T(kill(a, SIGTERM));
  T(waitpid(a, &s, WNOHANG));
  T(kill(a, SIGCONT));
  report("ended", waitpid(a, &s, 0) == a);
  status(s);
  a = sleeper();
  T(kill(a, SIGSTOP));
  report("again", waitpid(a, &s, WUNTRACED) == a);
  T(kill(a, SIGKILL));
  report("killed", waitpid(a, &s, 0) == a);
  status(s);
}

static siginfo_t last;
static volatile int heard;
static void on_child(int n, siginfo_t *i, void *c) {
  (void)n, (void)c;
  last = *i;
  heard++;
}

static void child_signals(void) {
  struct sigaction act = {.sa_sigaction = on_child, .sa_flags = SA_SIGINFO};
  int s;
  sigset_t block, old;
  sigemptyset(&block);
  sigaddset(&block, SIGCHLD);
  sigprocmask(SIG_BLOCK, &block, &old);
  sigaction(SIGCHLD, &act, 0);
  pid_t a = child(5);
  while (!heard) sigsuspend(&old);
  info(&last, a);
  T(wait(&s) == a);
  a = sleeper();
  heard = 0;
  kill(a, SIGSTOP);
  while (!heard) sigsuspend(&old);
  info(&last, a);
  heard = 0;
  kill(a, SIGKILL);
  while (!heard) sigsuspend(&old);
  info(&last, a);
  T(wait(&s) == a);
  act.sa_flags = SA_SIGINFO | SA_NOCLDSTOP;
  sigaction(SIGCHLD, &act, 0);
  sigprocmask(SIG_SETMASK, &old, 0);
  heard = 0;
  a = sleeper();
  kill(a, SIGSTOP);
  waitpid(a, &s, WUNTRACED);
  printf("     heard %d\n", heard);
  kill(a, SIGKILL);
  waitpid(a, &s, 0);
  printf("     heard %d\n", heard);
  act.sa_flags = SA_NOCLDWAIT | SA_SIGINFO;
  sigaction(SIGCHLD, &act, 0);
  a = child(1);
  T(wait(&s));
  signal(SIGCHLD, SIG_IGN);
  a = child(1);
  T(waitpid(a, &s, 0));
  signal(SIGCHLD, SIG_DFL);
}

static char stack[65536] __attribute__((aligned(16)));
static int shared_word;

static int as_clone(void *arg) {
  shared_word = *(int *)arg;
  close(77);
  chdir("/");
  _exit(9);
}

/* To the process, to its first thread, to the group that is called like it: this one leads none at first. */
static void pidfd_scopes(int pidfd) {
  siginfo_t i = {.si_signo = SIGCONT, .si_code = SI_QUEUE};
  for (int flags = 0; flags < 9; flags++) T(S(pidfd_send_signal, pidfd, 0, 0, flags));
  T(S(pidfd_send_signal, pidfd, SIGURG, &i, 1));
  T(S(pidfd_send_signal, pidfd, SIGCONT, &i, 1));
  T(S(pidfd_send_signal, pidfd, SIGCONT, &i, 4));
  i.si_code = SI_USER;
  for (int flags = 0; flags < 5; flags++) T(S(pidfd_send_signal, pidfd, SIGCONT, &i, flags));
  T(S(pidfd_send_signal, 1, 0, 0, 0));
  T(lseek(pidfd, 0, SEEK_SET));
}

static void pidfd_texts(int pidfd, pid_t child) {
  char path[64], line[128];
  sprintf(path, "/proc/self/fdinfo/%d", pidfd);
  FILE *file = fopen(path, "r");
  while (fgets(line, sizeof line, file))
    if (*line == 'P' || *line == 'N') report(*line == 'P' ? "number" : "number inside", atoi(strchr(line, ':') + 1) == child);
  fclose(file);
}

static void clones(void) {
  int word = 42, s, pidfd = -1;
  char here[256];
  pid_t p;
  T(S(clone, CLONE_SIGHAND, 0, 0, 0, 0));
  T(S(clone, CLONE_THREAD, 0, 0, 0, 0));
  T(S(clone, CLONE_FS | CLONE_NEWNS, 0, 0, 0, 0));
  T(S(clone, CLONE_PIDFD | CLONE_PARENT_SETTID, 0, &pidfd, 0, 0));
  struct clone_args c = {.exit_signal = SIGCHLD};
  T(S(clone3, &c, 8));
  T(S(clone3, &c, 5000));
  T(S(clone3, NOWHERE, 64));
  c.stack_size = 5;
  T(S(clone3, &c, sizeof c));
  c.stack_size = 0, c.exit_signal = 65;
  T(S(clone3, &c, sizeof c));
  c.exit_signal = 0, c.flags = SIGCHLD;
  T(S(clone3, &c, sizeof c));
  dup2(1, 77);
  p = clone(as_clone, stack + sizeof stack, CLONE_VM | CLONE_VFORK | SIGCHLD, &word);
  printf("     word %d file %d\n", shared_word, fcntl(77, F_GETFD));
  report("vfork", waitpid(p, &s, 0) == p);
  status(s);
  word = 43;
  p = clone(as_clone, stack + sizeof stack, CLONE_FILES | CLONE_FS | SIGCHLD, &word);
  report("files", waitpid(p, &s, 0) == p);
  T(fcntl(77, F_GETFD));
  printf("     word %d cwd %s\n", shared_word, getcwd(here, sizeof here));
  p = clone(as_clone, stack + sizeof stack, 0, &word);
  T(waitpid(p, &s, 0));
  report("clone child", waitpid(p, &s, __WCLONE) == p);
  status(s);
  signal(SIGUSR1, SIG_IGN); /* before there is a child that could end */
  p = clone(as_clone, stack + sizeof stack, SIGUSR1, &word);
  report("all", waitpid(p, &s, __WALL) == p);
  memset(&c, 0, sizeof c);
  c.flags = CLONE_PIDFD | CLONE_PARENT_SETTID | CLONE_CHILD_SETTID;
  pid_t parent_tid = 0, child_tid = 0;
  c.pidfd = (uintptr_t)&pidfd, c.parent_tid = (uintptr_t)&parent_tid, c.child_tid = (uintptr_t)&child_tid;
  c.exit_signal = SIGCHLD;
  fflush(stdout);
  p = S(clone3, &c, sizeof c);
  if (p == 0) _exit(child_tid == getpid() ? 33 : 1);
  report("parent tid", parent_tid == p);
  report("child tid", child_tid == 0);
  struct pollfd f = {pidfd, POLLIN, 0};
  printf("     poll %d", poll(&f, 1, -1));
  printf(" %x\n", f.revents);
  siginfo_t i;
  T(S(pidfd_send_signal, pidfd, 0, 0, 0));
  T(waitid(P_PIDFD, pidfd, &i, WEXITED));
  info(&i, p);
  T(S(pidfd_send_signal, pidfd, SIGTERM, 0, 0));
  T(fcntl(pidfd, F_GETFD));
  T(S(pidfd_open, 999999, 0));
  T(S(pidfd_open, getpid(), 1));
  T(S(pidfd_open, -1, 0));
  p = sleeper();
  pidfd = S(pidfd_open, p, O_NONBLOCK);
  T(waitid(P_PIDFD, pidfd, &i, WEXITED));
  f.fd = pidfd;
  T(poll(&f, 1, 0));
  pidfd_texts(pidfd, p);
  pidfd_scopes(pidfd);
  T(S(pidfd_send_signal, pidfd, SIGKILL, 0, 0));
  T(poll(&f, 1, -1));
  T(waitid(P_PIDFD, pidfd, &i, WEXITED));
  info(&i, p);
  T(read(pidfd, here, 1));
}

static pid_t thread;

static int as_thread(void *arg) {
  (void)arg;
  thread = S(gettid);
  for (;;) pause();
}

/* The numbers of threads name their process, but no group, and nothing that could be waited for. */
static void threads(void) {
  char path[64];
  int s, all = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM;
  fflush(stdout);
  pid_t p = fork();
  if (p) {
    waitpid(p, &s, 0);
    status(s);
    return;
  }
  clone(as_thread, stack + sizeof stack, all, 0);
  while (!*(volatile pid_t *)&thread) sched_yield();
  T(setpgid(thread, 0));
  T(setpgid(0, thread));
  T(getpgid(thread) == getpgrp());
  T(getsid(thread) == getsid(0));
  T(kill(thread, 0));
  T(kill(-thread, 0));
  T(waitpid(thread, &s, 0));
  T(S(tgkill, thread, thread, 0));
  sprintf(path, "/proc/%d/task/%d/comm", thread, thread);
  T(access(path, R_OK));
  sprintf(path, "/proc/%d/comm", thread);
  T(access(path, R_OK));
  fflush(stdout);
  _exit(0);
}

static void groups(void) {
  int s;
  pid_t a = sleeper(), b = sleeper();
  T(setpgid(a, a));
  T(setpgid(b, a));
  report("group", getpgid(b) == a);
  T(setpgid(-1, 0));
  T(setpgid(-1, a));
  T(setpgid(999999, 0));
  T(setpgid(b, 1));
  T(setpgid(1, 1));
  T(setpgid(a, -1));
  int led[2];
  char ready;
  pipe(led);
  fflush(stdout);
  pid_t leader = fork();
  if (leader == 0) {
    setsid();
    write(led[1], "", 1);
    for (;;) pause();
  }
  read(led[0], &ready, 1);
  close(led[0]), close(led[1]);
  T(setpgid(b, leader)); /* of another session */
  T(setpgid(leader, a));
  T(setpgid(leader, leader));
  kill(leader, SIGKILL);
  waitpid(leader, &s, 0);
  T(kill(-a, SIGUSR2));
  report("first of group", waitpid(-a, &s, 0) > 0);
  status(s);
  report("second of group", waitpid(-a, &s, 0) > 0);
  T(waitpid(-a, &s, 0));
  T(kill(-a, 0));
  fflush(stdout);
  a = fork();
  if (a == 0) {
    pid_t me = getpid();
    int ok = setsid() == me && getsid(0) == me && getpgrp() == me && setsid() == -1 && errno == EPERM;
    ok = ok && setpgid(0, 0) == -1 && errno == EPERM;
    int tty = open("/dev/tty", O_RDWR);
    _exit(ok && tty == -1 ? 0 : 1);
  }
  waitpid(a, &s, 0);
  status(s);
  int pipes[2];
  pipe(pipes);
  fcntl(pipes[1], F_SETFD, FD_CLOEXEC);
  fflush(stdout);
  a = fork();
  if (a == 0) execl("/bin/sleep", "sleep", "100", (char *)0), _exit(1);
  close(pipes[1]);
  char c;
  T(read(pipes[0], &c, 1));
  T(setpgid(a, a));
  T(kill(a, SIGKILL));
  T(wait(&s) == a);
}

/* The grandchild's new parent: this process, which asked for orphans. */
static void orphans(void) {
  int s, up[2];
  pid_t grandchild = 0, parent = 0;
  pipe(up);
  T(prctl(PR_SET_CHILD_SUBREAPER, 1));
  fflush(stdout);
  pid_t a = fork();
  if (a == 0) {
    pid_t a_parent = getpid(), g = fork();
    if (g == 0) {
      while (getppid() == a_parent) sched_yield();
      pid_t now = getppid();
      write(up[1], &now, sizeof now);
      _exit(6);
    }
    write(up[1], &g, sizeof g);
    _exit(0);
  }
  read(up[0], &grandchild, sizeof grandchild);
  report("child", waitpid(a, &s, 0) == a);
  read(up[0], &parent, sizeof parent);
  report("adopted", parent == getpid());
  report("orphan", wait(&s) == grandchild);
  status(s);
  T(prctl(PR_SET_CHILD_SUBREAPER, 0));
  fflush(stdout);
  a = fork();
  if (a == 0) {
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    pid_t g = fork();
    if (g == 0) {
      signal(SIGUSR1, SIG_DFL);
      prctl(PR_SET_PDEATHSIG, SIGUSR1);
      write(up[1], "r", 1);
      for (;;) pause();
    }
    char c;
    read(up[0], &c, 1);
    pid_t m = fork();
    if (m == 0) {
      int sig = -1;
      prctl(PR_GET_PDEATHSIG, &sig);
      _exit(sig);
    }
    waitpid(m, &s, 0);
    _exit(WEXITSTATUS(s));
  }
  waitpid(a, &s, 0);
  status(s);
  T(prctl(PR_SET_CHILD_SUBREAPER, 1));
  fflush(stdout);
  a = fork();
  if (a == 0) {
    char c;
    pid_t g = fork();
    if (g == 0) {
      prctl(PR_SET_PDEATHSIG, SIGUSR2);
      write(up[1], "r", 1);
      for (;;) pause();
    }
    read(up[0], &c, 1);
    _exit(0);
  }
  report("parent", waitpid(a, &s, 0) == a);
  report("told of its end", wait(&s) > 0);
  status(s);
  T(prctl(PR_SET_CHILD_SUBREAPER, 0));
}

/* What was written before the fork is both's, what is written after it is each one's own; shared memory is shared. */
static void memory(void) {
  int *private = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  int *shared = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  int *wiped = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  int *gone = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  int s, fd = open("both", O_CREAT | O_RDWR, 0600), before = 5;
  T(madvise(wiped, 4096, MADV_WIPEONFORK));
  T(madvise(gone, 4096, MADV_DONTFORK));
  private[0] = shared[0] = wiped[0] = gone[0] = 1;
  write(fd, "parent", 6);
  fflush(stdout);
  pid_t a = fork();
  if (a == 0) {
    int ok = private[0] == 1 && shared[0] == 1 && wiped[0] == 0 && before == 5;
    private[0] = shared[0] = 2;
    before = 6;
    write(fd, "child", 5);
    ok = ok && msync(gone, 4096, MS_ASYNC) == -1 && errno == ENOMEM;
    _exit(ok ? 0 : 1);
  }
  waitpid(a, &s, 0);
  status(s);
  printf("     %d %d %d %d %d\n", private[0], shared[0], wiped[0], gone[0], before);
  T(lseek(fd, 0, SEEK_CUR));
  show("both");
}

/* A session whose last tie to somebody who could continue a stopped group is gone: the group is hung up. */
static void hung_up(void) {
  int s, up[2];
  pid_t stopped = 0;
  pipe(up);
  T(prctl(PR_SET_CHILD_SUBREAPER, 1));
  fflush(stdout);
  pid_t leader = fork();
  if (leader == 0) {
    setsid();
    pid_t b = fork();
    if (b == 0) {
      setpgid(0, 0);
      raise(SIGSTOP);
      _exit(0);
    }
    waitpid(b, &s, WUNTRACED);
    write(up[1], &b, sizeof b);
    _exit(WIFSTOPPED(s));
  }
  read(up[0], &stopped, sizeof stopped);
  report("leader", waitpid(leader, &s, 0) == leader);
  status(s);
  report("hung up", waitpid(stopped, &s, 0) == stopped);
  status(s);
  T(prctl(PR_SET_CHILD_SUBREAPER, 0));
}

/* exec in a process that shares its descriptors with another one gives it a table of its own. */
static int executes(void *arg) {
  execl("/bin/sh", "sh", "-c", "exec 5>&-", (char *)0);
  return 1;
}

static void unshared(void) {
  int s;
  dup2(1, 5);
  fcntl(5, F_SETFD, FD_CLOEXEC);
  fflush(stdout);
  pid_t p = clone(executes, stack + sizeof stack, CLONE_FILES | SIGCHLD, 0);
  report("exec", waitpid(p, &s, 0) == p);
  status(s);
  T(fcntl(5, F_GETFD));
}

static void inherited(void) {
  int s;
  signal(SIGUSR1, SIG_IGN);
  alarm(100);
  struct rlimit few = {64, 64};
  setrlimit(RLIMIT_NOFILE, &few);
  prctl(PR_SET_NAME, "renamed");
  umask(027);
  nice(3);
  raise(SIGUSR1);
  sigset_t block, pending;
  sigemptyset(&block);
  sigaddset(&block, SIGUSR2);
  sigprocmask(SIG_BLOCK, &block, 0);
  raise(SIGUSR2);
  fflush(stdout);
  pid_t a = fork();
  if (a == 0) {
    char name[16];
    struct rlimit now;
    prctl(PR_GET_NAME, name);
    getrlimit(RLIMIT_NOFILE, &now);
    sigpending(&pending);
    sigprocmask(SIG_BLOCK, 0, &block);
    printf("     %s %ld %o %d alarm %d pending %d blocked %d\n", name, (long)now.rlim_cur, umask(0), nice(0), alarm(0),
           sigismember(&pending, SIGUSR2), sigismember(&block, SIGUSR2));
    fflush(stdout);
    _exit(0);
  }
  waitpid(a, &s, 0);
  status(s);
  struct rusage self, children;
  getrusage(RUSAGE_SELF, &self);
  getrusage(RUSAGE_CHILDREN, &children);
  report("children's faults", children.ru_minflt > 0);
}

int main(void) {
  setvbuf(stdout, 0, _IOFBF, 1 << 16);
  memory();
  waits();
  stops();
  child_signals();
  clones();
  groups();
  threads();
  orphans();
  hung_up();
  unshared();
  chdir("/");
  inherited();
  return 0;
}

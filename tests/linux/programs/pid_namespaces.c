/* Numbers of processes at three levels of PID namespaces: calls, signals, groups, orphans, chosen numbers. */
#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <linux/sched.h>
#include <pthread.h>
#include <unistd.h>
static const char *err(long result) { return result < 0 ? strerrorname_np(errno) : "ok"; }
static void heard(int number, siginfo_t *info, void *context) {
  (void)context;
  printf("signal %d code %d from %d\n", number, info->si_code, info->si_pid);
}
static void *thread(void *unused) {
  (void)unused;
  printf("thread %d of %d: tgkill %s\n", gettid(), getpid(), err(tgkill(getpid(), gettid(), 0)));
  return 0;
}
static pid_t make(int flags, pid_t *wanted, int count) {
  struct clone_args args = {.flags = flags, .exit_signal = SIGCHLD};
  args.set_tid = (uintptr_t)wanted;
  args.set_tid_size = count;
  fflush(0);
  return syscall(SYS_clone3, &args, sizeof args);
}
static void inside(int level) {
  struct sigaction action = {.sa_sigaction = heard, .sa_flags = SA_SIGINFO};
  siginfo_t info = {0};
  int status, pair[2];
  pthread_t other;
  pid_t child, wanted[5] = {77, 88, 99, 111, 122};
  sigaction(SIGUSR1, &action, 0);
  printf("level %d: %d %d %d %d\n", level, getpid(), getppid(), getpgid(0), getsid(0));
  kill(getpid(), SIGUSR1);
  sigqueue(getpid(), SIGUSR1, (union sigval){0});
  pthread_create(&other, 0, thread, 0);
  pthread_join(other, 0);
  child = make(0, wanted, 1);
  if (!child) _exit(getpid());
  printf("wait %d %d", child, waitpid(child, &status, 0));
  printf(" %d\n", WEXITSTATUS(status));
  child = make(0, wanted, 5);
  printf("too many %s\n", err(child));
  child = make(0, (pid_t[]){1}, 1);
  printf("taken %s\n", err(child));
  child = make(0, (pid_t[]){-1}, 1);
  printf("negative %s\n", err(child));
  fflush(0);
  if (!(child = fork())) {
    setpgid(0, 0);
    pause();
  }
  printf("setpgid %s", err(setpgid(child, child)));
  printf(" %d %d\n", getpgid(child) == child, child);
  kill(-child, SIGTERM);
  waitid(P_PGID, child, &info, WEXITED);
  printf("waitid %d %d\n", info.si_pid, info.si_status);
  socketpair(AF_UNIX, SOCK_STREAM, 0, pair);
  struct ucred who = {0};
  socklen_t size = sizeof who;
  getsockopt(pair[0], SOL_SOCKET, SO_PEERCRED, &who, &size);
  printf("peer %d; sched %s %s; sid %s; group %s\n", who.pid, err(sched_getscheduler(1)),
         err(sched_getscheduler(4000000)), err(getsid(4000000)), err(kill(-4000000, 0)));
  printf("all %s\n", err(kill(-1, 0)));
  fflush(0);
  if (!fork()) {
    if (!fork()) {
      while (getppid() != 1) usleep(1000);
      _exit(42);
    }
    _exit(0);
  }
  for (int at = 0; at < 2; at++) printf("orphans %d", waitpid(-1, &status, 0)), printf(" %d\n", WEXITSTATUS(status));
  if (level == 3) return;
  child = make(CLONE_NEWPID, level == 1 ? (pid_t[]){1, 99} : 0, level == 1 ? 2 : 0);
  if (!child) {
    inside(level + 1);
    if (!fork()) pause();
    exit(level);
  }
  printf("child %d\n", child);
  printf("waited %d", waitpid(child, &status, 0));
  printf(" %d\n", WEXITSTATUS(status));
}
int main(void) {
  setvbuf(stdout, 0, _IOFBF, 1 << 16);
  inside(1);
}

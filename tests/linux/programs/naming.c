#include "check.h"
/* Ways to name a process: an open /proc/PID, the number of a thread, kcmp; vhangup without a terminal. */
#include <linux/kcmp.h>
#include <pthread.h>

static volatile int signalled;
static volatile pid_t thread_number;
static int gate[2];

static void note(int number, siginfo_t *info, void *context) {
  (void)context;
  signalled = number * 1000 + info->si_code * 100 + info->si_value.sival_int;
}

static void *run(void *unused) {
  char byte;
  thread_number = syscall(SYS_gettid);
  while (read(gate[0], &byte, 1) < 0) continue;
  return unused;
}

int main(void) {
  setvbuf(stdout, 0, _IOFBF, 1 << 16);
  struct sigaction action = {.sa_sigaction = note, .sa_flags = SA_SIGINFO};
  sigaction(SIGUSR1, &action, 0);
  siginfo_t info = {.si_signo = SIGUSR1, .si_code = SI_QUEUE};
  info.si_value.sival_int = 42;

  int self = open("/proc/self", O_RDONLY | O_DIRECTORY), init = open("/proc/1", O_RDONLY | O_DIRECTORY);
  T(S(pidfd_send_signal, self, SIGUSR1, &info, 0));
  T(signalled);
  T(S(pidfd_send_signal, self, SIGUSR2, &info, 0));
  T(S(pidfd_send_signal, self, 0, 0, 0));
  T(S(pidfd_send_signal, self, SIGUSR1, &info, 99999));
  T(S(pidfd_send_signal, open("/proc/self/task", O_RDONLY), 0, 0, 0));
  T(S(pidfd_send_signal, open("/", O_RDONLY), 0, 0, 0));
  T(S(pidfd_send_signal, init, 0, 0, 0) == (geteuid() ? -1 : 0));
  pid_t child = fork();
  if (!child) {
    pause();
    _exit(0);
  }
  char path[64];
  snprintf(path, sizeof path, "/proc/%d", child);
  int directory = open(path, O_RDONLY | O_DIRECTORY);
  T(S(pidfd_send_signal, directory, SIGTERM, 0, 0));
  int status;
  T(waitpid(child, &status, 0) == child);
  T(status);
  T(S(pidfd_send_signal, directory, SIGTERM, 0, 0));

  pthread_t thread;
  T(pipe(gate));
  pthread_create(&thread, 0, run, 0);
  while (!thread_number) sched_yield();
  info.si_value.sival_int = 7;
  T(S(rt_sigqueueinfo, thread_number, SIGUSR1, &info));
  while (signalled % 100 != 7) sched_yield();
  T(signalled);
  T(kill(thread_number, 0));
  T(write(gate[1], "x", 1));
  pthread_join(thread, 0);

  int one = open("/", O_RDONLY), same = dup(one), other = open("/", O_RDONLY), me = getpid();
  T(S(kcmp, me, me, KCMP_FILE, one, same));
  T(S(kcmp, me, me, KCMP_FILE, one, other) > 0);
  T(S(kcmp, me, me, KCMP_FILE, one, 999));
  T(S(kcmp, me, me, 99, one, other));
  T(S(kcmp, me, 0x3fffff, KCMP_VM, 0, 0));
  fflush(stdout);
  if (!fork()) {
    for (int kind = KCMP_VM; kind < KCMP_IO; kind++) T(S(kcmp, me, getpid(), kind, 0, 0) > 0);
    T(S(kcmp, me, getpid(), KCMP_FILE, one, same));
    fflush(stdout);
    T(setsid() == getpid());
    T(S(vhangup) == (geteuid() ? -1 : 0));
    if (!geteuid()) {
      T(setuid(65534));
      T(S(vhangup));
      T(S(pidfd_send_signal, init, SIGUSR1, 0, 0));
      T(S(kcmp, me, getpid(), KCMP_VM, 0, 0));
    }
    fflush(stdout);
    _exit(0);
  }
  wait(0);
  T(getpgid(1) >= 0);
  T(getsid(1) >= 0);
  T(access("/proc/1/stat", R_OK));
}

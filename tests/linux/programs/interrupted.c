#include "check.h"

static void noted(int number) { printf("     signal %d\n", number); }

int main(void) {
  int p[2];
  char c;
  setvbuf(stdout, 0, _IONBF, 0);
  T(pipe(p));
  struct pollfd f[1] = {{p[0], POLLIN, 0}};
  struct timespec brief = {0, 20000000};
  struct sigaction sa = {.sa_handler = noted};
  sigaction(SIGALRM, &sa, 0);
  sigaction(SIGUSR1, &sa, 0);
  signal_asleep(SIGALRM);
  T(poll(f, 1, -1));
  signal_asleep(SIGALRM);
  T(read(p[0], &c, 1));
  signal_asleep(SIGALRM);
  T(select(0, 0, 0, 0, 0));
  signal_asleep(SIGALRM);
  T(ppoll(0, 0, 0, 0));
  while (wait(0) > 0);
  sigset_t set, none;
  sigemptyset(&none), sigemptyset(&set), sigaddset(&set, SIGUSR1);
  sigprocmask(SIG_BLOCK, &set, 0);
  raise(SIGUSR1);
  T(ppoll(0, 0, &brief, &none));
  T(sigprocmask(SIG_BLOCK, 0, &set));
  T(sigismember(&set, SIGUSR1));
  return 0;
}

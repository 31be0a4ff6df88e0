#include "check.h"
#include <sys/signalfd.h>
#include <sys/timerfd.h>

static volatile int rang, value, code, ran_out;

static void handler(int number, siginfo_t *info, void *context) {
  rang++, value = info->si_value.sival_int, code = info->si_code, ran_out = info->si_overrun > 0;
}

static void wait_for(int times) {
  sigset_t all, before;
  sigfillset(&all);
  sigprocmask(SIG_BLOCK, &all, &before);
  while (rang < times) sigsuspend(&before);
  sigprocmask(SIG_SETMASK, &before, 0);
}

static void posix_timers(void) {
  timer_t timer = 0;
  struct sigevent e = {{.sival_int = 77}, SIGRTMIN + 3, SIGEV_SIGNAL};
  struct itimerspec s = {{0, 0}, {0, 5000000}}, old;
  struct sigaction a = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO};
  sigaction(SIGRTMIN + 3, &a, 0);
  sigaction(SIGALRM, &a, 0);
  int id = -1;
  T(S(timer_create, 99, &e, &id));
  T(S(timer_create, CLOCK_MONOTONIC_RAW, &e, &id));
  T(S(timer_create, CLOCK_MONOTONIC, NOWHERE, &id));
  T(S(timer_create, CLOCK_MONOTONIC, &e, NOWHERE));
  T(S(timer_create, CLOCK_MONOTONIC, &e, &id));
  T(S(timer_settime, id + 40, 0, &s, 0));
  T(S(timer_settime, id, 0, NULL, 0));
  T(S(timer_settime, id, 0, NOWHERE, 0));
  T(S(timer_settime, id, 0, &s, &old));
  printf("     %ld %ld\n", (long)old.it_value.tv_nsec, (long)old.it_interval.tv_nsec);
  wait_for(1);
  printf("     value %d code %d\n", value, code);
  T(S(timer_gettime, id, &old));
  printf("     %ld %ld\n", (long)old.it_value.tv_nsec, (long)old.it_interval.tv_nsec);
  s.it_interval.tv_nsec = 1000000;
  T(S(timer_settime, id, 0, &s, 0));
  wait_for(5);
  sigset_t block, before;
  sigemptyset(&block), sigaddset(&block, SIGRTMIN + 3);
  sigprocmask(SIG_BLOCK, &block, &before);
  rang = 0;
  usleep(30000);
  siginfo_t info;
  T(sigwaitinfo(&block, &info) == SIGRTMIN + 3);
  printf("     overrun %d code %d value %d\n", info.si_overrun > 10, info.si_code, info.si_value.sival_int);
  T(S(timer_getoverrun, id) > 10);
  T(S(timer_delete, id));
  T(S(timer_delete, id));
  T(S(timer_gettime, id, &old));
  sigprocmask(SIG_SETMASK, &before, 0);
  rang = 0;
  T(S(timer_create, CLOCK_REALTIME, NULL, &id));
  clock_gettime(CLOCK_REALTIME, &s.it_value);
  s.it_value.tv_nsec += 3000000;
  if (s.it_value.tv_nsec > 999999999) s.it_value.tv_sec++, s.it_value.tv_nsec -= 1000000000;
  s.it_interval.tv_nsec = 0;
  T(S(timer_settime, id, TIMER_ABSTIME, &s, 0));
  wait_for(1);
  printf("     value is the id: %d\n", value == id);
  e.sigev_signo = 0;
  T(S(timer_create, CLOCK_REALTIME, &e, &id));
  e.sigev_notify = 99;
  T(S(timer_create, CLOCK_REALTIME, &e, &id));
  e.sigev_notify = SIGEV_NONE;
  T(S(timer_create, CLOCK_PROCESS_CPUTIME_ID, &e, &id) == 0);
  s.it_value.tv_sec = 100, s.it_value.tv_nsec = 0;
  T(S(timer_settime, id, 0, &s, 0));
  T(S(timer_gettime, id, &old));
  printf("     %d\n", old.it_value.tv_sec >= 99 && old.it_value.tv_sec <= 100);
  rang = 0;
  e.sigev_notify = SIGEV_SIGNAL, e.sigev_signo = SIGRTMIN + 3;
  T(S(timer_create, CLOCK_THREAD_CPUTIME_ID, &e, &id) == 0);
  s.it_value.tv_sec = 0, s.it_value.tv_nsec = 20000000;
  T(S(timer_settime, id, 0, &s, 0));
  while (!rang) {}
  printf("     rang after its own time\n");
  rang = 0;
  struct itimerval v = {{0, 0}, {0, 20000}};
  sigaction(SIGPROF, &a, 0);
  T(setitimer(ITIMER_PROF, &v, 0));
  while (!rang) {}
  struct timespec spent;
  T(clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &spent));
  printf("     %d\n", spent.tv_sec * 1000000000 + spent.tv_nsec >= 20000000);
}

static void timer_files(void) {
  struct itimerspec s = {{0, 0}, {100, 0}}, old;
  uint64_t ticks = 0;
  int fd;
  T(timerfd_create(99, 0));
  T(timerfd_create(CLOCK_PROCESS_CPUTIME_ID, 0));
  T(timerfd_create(CLOCK_MONOTONIC, 1));
  T((fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC)) >= 0);
  T(fcntl(fd, F_GETFD));
  T(fcntl(fd, F_GETFL));
  T(read(fd, &ticks, 8));
  T(read(fd, &ticks, 7));
  T(write(fd, &ticks, 8));
  T(timerfd_settime(0, 0, &s, 0));
  T(timerfd_settime(fd, 99, &s, 0));
  T(timerfd_settime(fd, 0, NOWHERE, 0));
  T(timerfd_settime(fd, 0, &s, &old));
  struct pollfd p = {fd, POLLIN | POLLOUT};
  T(poll(&p, 1, 0));
  s.it_value = (struct timespec){0, 5000000};
  T(timerfd_settime(fd, 0, &s, &old));
  printf("     %d\n", old.it_value.tv_sec > 0);
  T(poll(&p, 1, -1));
  printf("     %x\n", p.revents);
  T(read(fd, &ticks, 8));
  printf("     %lu\n", ticks);
  T(timerfd_gettime(fd, &old));
  printf("     %ld\n", (long)old.it_value.tv_nsec);
  s.it_interval.tv_nsec = 1000000, s.it_value.tv_nsec = 5000000;
  T(timerfd_settime(fd, 0, &s, 0));
  T(fcntl(fd, F_SETFL, 0));
  usleep(20000);
  T(read(fd, &ticks, 8));
  printf("     %d\n", ticks >= 10);
  T(read(fd, &ticks, 8));
  s.it_value.tv_nsec = 1, s.it_interval.tv_nsec = 0;
  T(timerfd_settime(fd, TFD_TIMER_ABSTIME, &s, 0));
  T(read(fd, &ticks, 8));
  printf("     %lu\n", ticks);
  int list = epoll_create1(0);
  struct epoll_event event = {EPOLLIN, {.fd = fd}}, out;
  T(epoll_ctl(list, EPOLL_CTL_ADD, fd, &event));
  s.it_value.tv_nsec = 2000000;
  T(timerfd_settime(fd, 0, &s, 0));
  T(epoll_wait(list, &out, 1, -1));
  T(close(fd));
  T(close(list));
}

static void signal_files(void) {
  sigset_t mask;
  struct signalfd_siginfo info[4];
  int fd;
  sigemptyset(&mask), sigaddset(&mask, SIGUSR1), sigaddset(&mask, SIGRTMIN), sigaddset(&mask, SIGCHLD);
  sigprocmask(SIG_BLOCK, &mask, 0);
  T(S(signalfd4, -1, &mask, 4, 0));
  T(S(signalfd4, -1, &mask, 8, 1));
  T(S(signalfd4, 0, &mask, 8, 0));
  T((fd = S(signalfd4, -1, &mask, 8, SFD_NONBLOCK)) >= 0);
  T(read(fd, info, sizeof info));
  T(read(fd, info, 127));
  kill(getpid(), SIGUSR1);
  sigqueue(getpid(), SIGRTMIN, (union sigval){.sival_int = -5});
  sigqueue(getpid(), SIGRTMIN, (union sigval){.sival_int = 6});
  struct pollfd p = {fd, POLLIN};
  T(poll(&p, 1, 0));
  T(read(fd, info, 2 * 128 + 50));
  for (int i = 0; i < 2; i++)
    printf("     %u %d own %d uid %u int %d ptr %lx\n", info[i].ssi_signo, info[i].ssi_code,
           info[i].ssi_pid == getpid(), info[i].ssi_uid, info[i].ssi_int, (long)info[i].ssi_ptr);
  T(read(fd, info, sizeof info));
  printf("     %d\n", info[0].ssi_int);
  T(poll(&p, 1, 0));
  fcntl(fd, F_SETFL, 0);
  int child = fork();
  if (!child) {
    usleep(20000);
    _exit(7);
  }
  T(read(fd, info, sizeof info));
  printf("     %u code %d own %d status %d\n", info[0].ssi_signo, info[0].ssi_code, info[0].ssi_pid == child,
         info[0].ssi_status);
  T(waitpid(child, 0, 0) == child);
  if (!(child = fork())) {
    usleep(20000);
    kill(getppid(), SIGUSR1);
    _exit(0);
  }
  T(poll(&p, 1, -1));
  T(read(fd, info, 128));
  T(info[0].ssi_pid == child || info[0].ssi_signo == SIGCHLD);
  waitpid(child, 0, 0);
  sigemptyset(&mask), sigaddset(&mask, SIGUSR2);
  T(S(signalfd4, fd, &mask, 8, 0) == fd);
  kill(getpid(), SIGUSR1);
  T(poll(&p, 1, 0));
}

int main(void) {
  setvbuf(stdout, 0, _IOLBF, 0);
  posix_timers();
  timer_files();
  signal_files();
  return 0;
}

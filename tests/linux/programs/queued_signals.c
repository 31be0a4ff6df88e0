/* Signals that wait: in which order they come, how many may, which are lost, and what is told of each. */
#include "check.h"
#include <pthread.h>
#include <sys/signalfd.h>
#include <sys/utsname.h>

#define LOWEST 34 /* the C library keeps two for itself */

static volatile int heard;
static siginfo_t told[64];

static void handler(int number, siginfo_t *info, void *context) {
  (void)number, (void)context;
  told[heard++] = *info;
}

static void tell(siginfo_t *info) {
  int sent = info->si_code == SI_QUEUE || info->si_code == SI_TIMER;
  printf("     %d code %d from me %d value %d\n", info->si_signo, info->si_code, info->si_pid == getpid(),
         sent ? info->si_int : 0);
}

/* Let all that waits come, and print it. */
static void deliver(sigset_t *everything) {
  sigset_t blocked;
  sigprocmask(SIG_UNBLOCK, everything, &blocked);
  for (int i = 0; i < heard; i++) tell(&told[i]);
  heard = 0;
  sigprocmask(SIG_SETMASK, &blocked, 0);
}

static void queue(int number, int value) {
  union sigval with = {.sival_int = value};
  T(sigqueue(getpid(), number, with));
}

static void waiting(void) {
  sigset_t now;
  sigpending(&now);
  printf("     waiting:");
  for (int number = 1; number <= SIGRTMAX; number++)
    if (sigismember(&now, number) == 1) printf(" %d", number);
  printf("\n");
}

static void order(sigset_t *everything) {
  for (int turn = 0; turn < 3; turn++)
    for (int number = 43; number >= LOWEST; number -= 3) queue(number, 100 * turn + number);
  int numbers[] = {SIGUSR1, SIGUSR1, SIGCHLD, SIGSEGV, SIGFPE, SIGTERM, 64, 64};
  for (int i = 0; i < 8; i++) T(kill(getpid(), numbers[i]));
  T(S(tgkill, getpid(), getpid(), SIGUSR1));
  T(S(tgkill, getpid(), getpid(), 45));
  waiting();
  deliver(everything);
}

/* Without room, kill(2) still works, what a standard signal has to tell is lost, and the others are refused. */
static void full(sigset_t *everything) {
  struct rlimit before, none;
  getrlimit(RLIMIT_SIGPENDING, &before);
  none = before;
  none.rlim_cur = 0;
  T(setrlimit(RLIMIT_SIGPENDING, &none));
  queue(LOWEST, 7);
  T(kill(getpid(), 35));
  T(kill(getpid(), 35));
  T(kill(getpid(), SIGUSR2));
  queue(SIGUSR1, 7);
  T(S(tgkill, getpid(), getpid(), 36));
  T(S(tgkill, getpid(), getpid(), SIGURG));
  timer_t timer;
  T(timer_create(CLOCK_MONOTONIC, 0, &timer));
  setrlimit(RLIMIT_SIGPENDING, &before);
  waiting();
  deliver(everything);
}

/* A timer has its room from the start: it is heard of when nobody else would be. */
static void full_later(sigset_t *everything) {
  struct rlimit before, none;
  struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = 40, .sigev_value.sival_int = 5};
  struct itimerspec soon = {.it_value.tv_nsec = 1};
  struct timespec second = {10, 0};
  siginfo_t info;
  sigset_t its;
  timer_t timer;
  sigemptyset(&its);
  sigaddset(&its, 40);
  getrlimit(RLIMIT_SIGPENDING, &before);
  none = before;
  none.rlim_cur = 0;
  T(timer_create(CLOCK_MONOTONIC, &event, &timer));
  setrlimit(RLIMIT_SIGPENDING, &none);
  T(timer_settime(timer, 0, &soon, 0));
  T(sigtimedwait(&its, &info, &second));
  tell(&info);
  setrlimit(RLIMIT_SIGPENDING, &before);
  T(timer_delete(timer));
  deliver(everything);
}

/* A timer's signal that waits goes with the timer, and with its setting (since Linux 6.13). */
static void forgotten(void) {
  struct utsname host;
  int major = 0, minor = 0;
  uname(&host);
  sscanf(host.release, "%d.%d", &major, &minor);
  if (major < 6 || (major == 6 && minor < 13)) return;
  struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = 40};
  struct itimerspec soon = {.it_value.tv_nsec = 1}, later = {.it_value.tv_sec = 1000};
  struct timespec none = {0, 0};
  siginfo_t info;
  sigset_t its, now;
  timer_t timer;
  sigemptyset(&its);
  sigaddset(&its, 40);
  timer_create(CLOCK_MONOTONIC, &event, &timer);
  for (int turn = 0; turn < 2; turn++) {
    timer_settime(timer, 0, &soon, 0);
    do sigpending(&now);
    while (!sigismember(&now, 40));
    if (turn) T(timer_delete(timer));
    else T(timer_settime(timer, 0, &later, 0));
    T(sigtimedwait(&its, &info, &none));
  }
}

static volatile pid_t the_thread, who;
static int ready[2];

static void note(int number) {
  (void)number;
  who = gettid();
}

static void *hears(void *nothing) {
  the_thread = gettid();
  write(ready[1], "", 1);
  for (;;) pause();
  return nothing;
}

/* A timer for one thread: not for the first one, which would get what is for any. */
static void to_a_thread(void) {
  struct sigaction action = {.sa_handler = note}, before;
  struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = 40};
  struct itimerspec soon = {.it_value.tv_nsec = 1};
  sigset_t its;
  pthread_t thread;
  timer_t timer;
  char c;
  sigemptyset(&its);
  sigaddset(&its, 40);
  sigaction(40, &action, &before);
  sigprocmask(SIG_UNBLOCK, &its, 0);
  pipe(ready);
  pthread_create(&thread, 0, hears, 0);
  read(ready[0], &c, 1);
  pid_t threads[] = {the_thread, getpid()}, wrong[] = {0, 1, -1};
  for (int i = 0; i < 2; i++) {
    event._sigev_un._tid = threads[i];
    T(timer_create(CLOCK_MONOTONIC, &event, &timer) == 0);
    who = 0;
    timer_settime(timer, 0, &soon, 0);
    while (!who) usleep(1000);
    printf("     the thread %d\n", who == threads[i]);
    timer_delete(timer);
  }
  for (int i = 0; i < 3; i++) {
    event._sigev_un._tid = wrong[i];
    T(timer_create(CLOCK_MONOTONIC, &event, &timer));
  }
  sigprocmask(SIG_BLOCK, &its, 0);
  sigaction(40, &before, 0);
}

static void pretended(void) {
  siginfo_t info = {.si_signo = 40};
  fflush(stdout);
  pid_t child = fork();
  if (!child)
    for (;;) pause();
  int codes[] = {SI_USER, SI_TKILL, 5, SI_KERNEL, -10};
  for (int i = 0; i < 5; i++) {
    info.si_code = codes[i];
    T(S(rt_sigqueueinfo, child, 0, &info));
    T(S(rt_sigqueueinfo, getpid(), 0, &info));
    T(S(rt_tgsigqueueinfo, child, child, 0, &info));
    T(S(rt_tgsigqueueinfo, getpid(), getpid(), 0, &info));
  }
  T(S(rt_sigqueueinfo, child, 65, &info));
  T(S(rt_sigqueueinfo, 999999, 40, &info));
  T(S(rt_sigqueueinfo, child, 40, NOWHERE));
  T(S(rt_tgsigqueueinfo, child, getpid(), 40, &info));
  T(S(rt_tgsigqueueinfo, 0, child, 40, &info));
  T(S(rt_tgsigqueueinfo, child, -1, 40, &info));
  T(S(tgkill, child, getpid(), 0));
  T(S(tgkill, -1, child, 0));
  T(S(tkill, 0, 0));
  T(S(tkill, child, 65));
  T(kill(child, -1));
  T(kill(-child, 0));
  kill(child, SIGKILL);
  wait(0);
}

static void stop_and_continue(sigset_t *everything) {
  int numbers[] = {SIGTSTP, SIGCONT, SIGTTIN, SIGTTOU, SIGCONT, SIGCONT};
  for (int i = 0; i < 6; i++) {
    T(kill(getpid(), numbers[i]));
    waiting();
  }
  deliver(everything);
}

static void taken(sigset_t *everything) {
  struct timespec none = {0, 0}, negative = {-1, 0}, no_time = {0, 1000000000}, short_time = {0, 1000000};
  siginfo_t info;
  sigset_t some;
  sigemptyset(&some);
  sigaddset(&some, SIGUSR1), sigaddset(&some, LOWEST), sigaddset(&some, 36);
  T(sigtimedwait(&some, &info, &none));
  T(sigtimedwait(&some, &info, &negative));
  T(sigtimedwait(&some, &info, &no_time));
  T(sigtimedwait(&some, &info, &short_time));
  queue(36, 1);
  queue(LOWEST, 2);
  kill(getpid(), SIGUSR1);
  for (int i = 0; i < 3; i++) {
    T(sigwaitinfo(&some, &info));
    tell(&info);
  }
  T(S(rt_sigtimedwait, &some, 0, &none, 4));
  T(S(rt_sigtimedwait, NOWHERE, 0, &none, 8));
  kill(getpid(), SIGUSR1);
  T(S(rt_sigtimedwait, &some, NOWHERE, &none, 8)); /* it is taken all the same */
  T(S(rt_sigtimedwait, &some, 0, &none, 8));
  deliver(everything);
}

static void read_them(sigset_t *everything) {
  struct signalfd_siginfo found[8];
  sigset_t one;
  int fd = signalfd(-1, everything, SFD_NONBLOCK);
  T(read(fd, found, sizeof found));
  T(read(fd, found, 127));
  T(write(fd, found, 128));
  T(lseek(fd, 7, SEEK_END));
  for (int i = 0; i < 4; i++) queue(50, i);
  kill(getpid(), SIGUSR1);
  S(tgkill, getpid(), getpid(), SIGUSR2);
  queue(LOWEST, 77);
  kill(getpid(), SIGSEGV);
  struct pollfd asked = {fd, POLLIN | POLLOUT, 0};
  T(poll(&asked, 1, 0));
  printf("     %x\n", asked.revents);
  for (size_t room = 300; room >= 300; room = room == 300 ? sizeof found : 0) {
    ssize_t size = read(fd, found, room);
    printf("     %zd bytes\n", size);
    for (int i = 0; i < size / 128; i++)
      printf("     %d code %d from me %d uid %d value %d %d\n", found[i].ssi_signo, found[i].ssi_code,
             found[i].ssi_pid == (unsigned)getpid(), found[i].ssi_uid == getuid(), found[i].ssi_int,
             (int)found[i].ssi_ptr);
  }
  sigemptyset(&one);
  sigaddset(&one, SIGUSR2);
  T(signalfd(fd, &one, 0) == fd);
  kill(getpid(), SIGUSR1);
  T(poll(&asked, 1, 0));
  kill(getpid(), SIGUSR2);
  T(poll(&asked, 1, 0));
  T(read(fd, found, 128));
  T(signalfd(0, &one, 0));
  T(signalfd(-1, &one, 1));
  T(S(signalfd4, -1, &one, 4, 0));
  T(S(signalfd4, -1, NOWHERE, 8, 0));
  close(fd);
  deliver(everything);
}

/* What each signal does to a process that says nothing about it; a group of its own is not orphaned, so it stops. */
static void by_default(void) {
  struct rlimit none = {0, 0};
  fflush(stdout);
  for (int number = 1; number <= SIGRTMAX; number++) {
    sigset_t all;
    sigfillset(&all);
    pid_t child = fork();
    if (!child) {
      setpgid(0, 0);
      setrlimit(RLIMIT_CORE, &none);
      signal(number, SIG_DFL);
      sigprocmask(SIG_UNBLOCK, &all, 0);
      raise(number);
      _exit(77);
    }
    int s = -1;
    waitpid(child, &s, WUNTRACED);
    printf("     %d: %x\n", number, s);
    if (WIFSTOPPED(s)) kill(child, SIGKILL), waitpid(child, &s, 0);
  }
}

int main(void) {
  sigset_t everything;
  struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO};
  sigfillset(&action.sa_mask);
  sigfillset(&everything);
  for (int number = 1; number <= SIGRTMAX; number++) sigaction(number, &action, 0);
  sigprocmask(SIG_BLOCK, &everything, 0);
  order(&everything);
  full(&everything);
  full_later(&everything);
  pretended();
  deliver(&everything);
  stop_and_continue(&everything);
  taken(&everything);
  read_them(&everything);
  forgotten();
  to_a_thread();
  by_default();
  return 0;
}

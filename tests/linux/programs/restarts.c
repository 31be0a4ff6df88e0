/* Which system calls go on after a signal: with a handler that asks for it or does not, and after a stop. */
#include "check.h"
#include <linux/futex.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/un.h>

static volatile int *heard; /* shared with the children; what follows it is a futex */
static int stops;           /* whether the signal is a stop, which goes on, and not one with a handler */

static void handler(int number) {
  (void)number;
  ++*heard;
}

/* In a child: send the signal when the parent sleeps; come back when it has had it and sleeps again, or waits for us. */
static void disturb(void) {
  pid_t parent = getppid();
  int before = *heard;
  asleep(parent);
  kill(parent, stops ? SIGSTOP : SIGALRM);
  if (stops) {
    until_state(parent, parent, 'T');
    kill(parent, SIGCONT);
  } else {
    while (*heard == before) usleep(1000);
  }
  asleep(parent);
}

/* Make a call that a signal disturbs; `rescue` ends it if it goes on. */
#define R(call, rescue)   \
  do {                    \
    fflush(stdout);       \
    pid_t child_ = fork(); \
    if (!child_) {        \
      disturb();          \
      rescue;             \
      _exit(0);           \
    }                     \
    T(call);              \
    ended(child_);        \
  } while (0)

static void ended(pid_t child) {
  while (waitpid(child, 0, 0) != child && errno == EINTR) continue;
}

static pid_t paused(void) {
  fflush(stdout);
  pid_t child = fork();
  if (!child)
    for (;;) pause();
  return child;
}

static void drain(int fd) {
  char rest[256];
  fcntl(fd, F_SETFL, O_NONBLOCK);
  while (read(fd, rest, sizeof rest) > 0) continue;
  fcntl(fd, F_SETFL, 0);
}

static void streams(void) {
  int p[2], s[2], full[2], l = socket(AF_UNIX, SOCK_STREAM, 0);
  struct sockaddr_un name = {AF_UNIX, "listening"};
  struct timeval second = {60, 0};
  char c, page[4096] = "";
  pipe(p), pipe(full), socketpair(AF_UNIX, SOCK_STREAM, 0, s);
  R(read(p[0], &c, 1), write(p[1], "", 1));
  drain(p[0]);
  R(recv(s[0], &c, 1, 0), write(s[1], "", 1));
  drain(s[0]);
  setsockopt(s[0], SOL_SOCKET, SO_RCVTIMEO, &second, sizeof second);
  R(recv(s[0], &c, 1, 0), write(s[1], "", 1));
  drain(s[0]);
  fcntl(full[1], F_SETPIPE_SZ, 4096);
  write(full[1], page, 4096);
  R(write(full[1], page, 4096), read(full[0], page, 4096));
  bind(l, (struct sockaddr *)&name, sizeof name);
  listen(l, 5);
  R(accept(l, 0, 0) > 0, connect(socket(AF_UNIX, SOCK_STREAM, 0), (struct sockaddr *)&name, sizeof name));
  unlink("listening");
  mkfifo("fifo", 0600);
  R(open("fifo", O_RDONLY) > 0, open("fifo", O_WRONLY | O_NONBLOCK));
  unlink("fifo");
}

static void polls(void) {
  int p[2];
  pipe(p);
  struct pollfd f = {p[0], POLLIN, 0};
  struct timespec seconds = {60, 0};
  struct timeval also = {60, 0};
  fd_set set;
  struct epoll_event event = {.events = EPOLLIN};
  int list = epoll_create1(0);
  epoll_ctl(list, EPOLL_CTL_ADD, p[0], &event);
  R(poll(&f, 1, 60000), write(p[1], "", 1));
  drain(p[0]);
  R(ppoll(&f, 1, &seconds, 0), write(p[1], "", 1));
  drain(p[0]);
  FD_ZERO(&set);
  FD_SET(p[0], &set);
  R(select(p[0] + 1, &set, 0, 0, &also), write(p[1], "", 1));
  drain(p[0]);
  FD_ZERO(&set);
  FD_SET(p[0], &set);
  R(pselect(p[0] + 1, &set, 0, 0, &seconds, 0), write(p[1], "", 1));
  drain(p[0]);
  R(epoll_wait(list, &event, 1, 60000), write(p[1], "", 1));
  drain(p[0]);
}

static void times(void) {
  int *word = (int *)heard + 1;
  struct timespec seconds = {60, 0}, some = {0, 50000000}, at;
  if (stops) seconds = some;
  R(nanosleep(&seconds, &at), (void)0);
  R(clock_nanosleep(CLOCK_MONOTONIC, 0, &seconds, &at), (void)0);
  clock_gettime(CLOCK_MONOTONIC, &at);
  at.tv_sec += seconds.tv_sec + 1;
  R(clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, 0), (void)0);
  R(S(futex, word, FUTEX_WAIT, 0, &seconds, 0, 0), (void)0);
  R(S(futex, word, FUTEX_WAIT, 0, 0, 0, 0), S(futex, word, FUTEX_WAKE, 1, 0, 0, 0));
}

static void events(void) {
  sigset_t set;
  uint64_t count = 1;
  struct signalfd_siginfo info;
  struct timespec seconds = {60, 0};
  struct itimerspec at_once = {.it_value.tv_nsec = 1}, later = {.it_value.tv_sec = 60};
  pid_t me = getpid();
  sigemptyset(&set), sigaddset(&set, SIGUSR1);
  sigprocmask(SIG_BLOCK, &set, 0);
  int e = eventfd(0, 0), t = timerfd_create(CLOCK_MONOTONIC, 0), s = signalfd(-1, &set, 0);
  timerfd_settime(t, 0, &later, 0);
  R(read(e, &count, 8), write(e, &count, 8));
  R(read(t, &count, 8), timerfd_settime(t, 0, &at_once, 0));
  R(read(s, &info, sizeof info), kill(me, SIGUSR1));
  signal(SIGUSR1, SIG_IGN), signal(SIGUSR1, SIG_DFL);
  R(sigtimedwait(&set, 0, &seconds), kill(me, SIGUSR1));
  signal(SIGUSR1, SIG_IGN), signal(SIGUSR1, SIG_DFL);
  if (!stops) R(pause(), (void)0);
}

static void others(void) {
  int s, first = open("locked", O_RDWR | O_CREAT, 0600), second = open("locked", O_RDWR);
  siginfo_t info;
  struct flock whole = {.l_type = F_WRLCK}, none = {.l_type = F_UNLCK};
  pid_t other = paused();
  R(waitpid(other, &s, 0) == other, kill(other, SIGKILL));
  kill(other, SIGKILL), waitpid(other, &s, 0);
  other = paused();
  R(waitid(P_PID, other, &info, WEXITED), kill(other, SIGKILL));
  kill(other, SIGKILL), waitpid(other, &s, 0);
  flock(first, LOCK_EX);
  R(flock(second, LOCK_EX), flock(first, LOCK_UN));
  fcntl(first, F_OFD_SETLK, &whole);
  R(fcntl(second, F_OFD_SETLKW, &whole), fcntl(first, F_OFD_SETLK, &none));
  unlink("locked");
}

int main(void) {
  int status;
  if (fork()) { /* it is not the first process that is stopped: with that one the machine would stop */
    wait(&status);
    return WEXITSTATUS(status);
  }
  heard = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  for (int turn = 0; turn < 3; turn++) {
    static const char *const turns[] = {"a handler", "a handler with SA_RESTART", "a stop"};
    struct sigaction action = {.sa_handler = handler, .sa_flags = turn == 1 ? SA_RESTART : 0};
    sigaction(SIGALRM, &action, 0);
    stops = turn == 2;
    printf("%s\n", turns[turn]);
    streams();
    polls();
    times();
    events();
    others();
  }
  return 0;
}

/* What epoll tells of pipes, sockets, counters, timers, signals, terminals, processes and of other lists: edges, one
   shots, exclusive waiters, the order of what is ready, closed and duplicated descriptors. */
#include "check.h"
#include <pthread.h>
#include <pty.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/un.h>

#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif

static int list(void) { return epoll_create1(0); }

static int add(int ep, int fd, unsigned events, int data) {
  struct epoll_event e = {events, {.u64 = data}};
  return epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e);
}

static int mod(int ep, int fd, unsigned events, int data) {
  struct epoll_event e = {events, {.u64 = data}};
  return epoll_ctl(ep, EPOLL_CTL_MOD, fd, &e);
}

static void told_at(int line, int ep, int most, int timeout) {
  struct epoll_event out[64];
  int n = epoll_wait(ep, out, most, timeout);
  printf("%4d told %d:", line, n);
  for (int i = 0; i < n; i++) printf(" %d:%x", (int)out[i].data.u64, out[i].events);
  if (n < 0) printf(" %s", strerrorname_np(errno));
  printf("\n");
}
#define told(...) told_at(__LINE__, __VA_ARGS__)

static void pipes(void) {
  int p[2], ep = list();
  static char block[70000];
  pipe2(p, O_NONBLOCK);
  T(add(ep, p[0], EPOLLIN | EPOLLET, 1));
  T(add(ep, p[1], EPOLLOUT | EPOLLET, 2));
  told(ep, 8, 0);
  told(ep, 8, 0);
  T(write(p[1], "abc", 3));
  told(ep, 8, 0);
  told(ep, 8, 0);
  T(read(p[0], block, 1));
  told(ep, 8, 0);
  T(write(p[1], "d", 1)); /* another arrival, though there was something already */
  told(ep, 8, 0);
  T(read(p[0], block, 100));
  told(ep, 8, 0);
  T(write(p[1], block, sizeof block));
  told(ep, 8, 0);
  T(write(p[1], block, 1));
  told(ep, 8, 0);
  T(read(p[0], block, 100)); /* still full: no buffer is free */
  told(ep, 8, 0);
  T(read(p[0], block, 5000));
  told(ep, 8, 0);
  T(read(p[0], block, 5000));
  told(ep, 8, 0);
  T(mod(ep, p[0], EPOLLIN | EPOLLET, 3)); /* what holds is told again */
  T(mod(ep, p[1], EPOLLOUT | EPOLLONESHOT, 4));
  told(ep, 8, 0);
  T(read(p[0], block, sizeof block));
  T(write(p[1], block, 10));
  told(ep, 8, 0);
  T(mod(ep, p[1], EPOLLOUT | EPOLLONESHOT, 5));
  told(ep, 8, 0);
  told(ep, 8, 0);
  T(close(p[1]));
  told(ep, 8, 0);
  told(ep, 8, 0);
  T(read(p[0], block, 100));
  T(mod(ep, p[0], EPOLLIN, 6));
  told(ep, 8, 0);
  told(ep, 8, 0);
  T(mod(ep, p[0], 0, 7)); /* hang-ups come unasked */
  told(ep, 8, 0);
  pipe(p);
  T(add(ep, p[1], EPOLLET, 8));
  close(p[0]);
  told(ep, 8, 0);
  told(ep, 8, 0);
  close(ep);
}

static void once(void) {
  int p[2], ep = list();
  char c;
  pipe(p);
  T(add(ep, p[0], EPOLLIN | EPOLLONESHOT, 1));
  write(p[1], "a", 1);
  told(ep, 8, 0);
  write(p[1], "b", 1);
  told(ep, 8, 0);
  close(p[1]);
  told(ep, 8, 0);
  T(mod(ep, p[0], EPOLLIN | EPOLLONESHOT | EPOLLET, 2));
  told(ep, 8, 0);
  read(p[0], &c, 1);
  told(ep, 8, 0);
  T(mod(ep, p[0], EPOLLIN | EPOLLRDHUP | EPOLLONESHOT, 3));
  told(ep, 8, 0);
  close(p[0]);
  close(ep);
}

/* Served descriptors go to the end; what was not taken stays in front. */
static void order(void) {
  int p[6][2], ep = list();
  char c;
  for (int i = 0; i < 6; i++) {
    pipe(p[i]);
    add(ep, p[i][0], EPOLLIN, i);
  }
  int turns[] = {3, 1, 4, 0, 5, 2};
  for (int i = 0; i < 6; i++) write(p[turns[i]][1], "x", 1);
  told(ep, 8, 0);
  told(ep, 2, 0);
  told(ep, 2, 0);
  told(ep, 3, 0);
  write(p[4][1], "y", 1);
  told(ep, 8, 0);
  read(p[1][0], &c, 1);
  told(ep, 1, 0);
  told(ep, 8, 0);
  T(mod(ep, p[5][0], EPOLLIN | EPOLLET, 5));
  T(mod(ep, p[1][0], EPOLLIN | EPOLLET, 1));
  write(p[1][1], "z", 1);
  told(ep, 2, 0);
  told(ep, 8, 0);
  told(ep, 8, 0);
  T(epoll_ctl(ep, EPOLL_CTL_DEL, p[3][0], 0));
  T(add(ep, p[3][0], EPOLLIN, 33));
  told(ep, 8, 0);
  for (int i = 0; i < 6; i++) close(p[i][0]), close(p[i][1]);
  told(ep, 8, 0);
  close(ep);
}

static void duplicates(void) {
  int p[2], q[2], ep = list();
  pipe(p);
  pipe(q);
  int copy = dup(p[0]);
  T(add(ep, p[0], EPOLLIN, 1));
  T(add(ep, copy, EPOLLIN, 2));
  T(add(ep, copy, EPOLLIN, 2));
  write(p[1], "x", 1);
  told(ep, 8, 0);
  close(p[0]);
  told(ep, 8, 0); /* its file is open still */
  T(epoll_ctl(ep, EPOLL_CTL_DEL, p[0], 0));
  T(dup2(q[0], p[0]) == p[0]);
  T(epoll_ctl(ep, EPOLL_CTL_DEL, p[0], 0)); /* another file, which was never added */
  T(add(ep, p[0], EPOLLIN, 3));
  write(q[1], "x", 1);
  told(ep, 8, 0);
  close(copy);
  told(ep, 8, 0);
  if (!fork()) {
    char c;
    T(add(ep, q[0], EPOLLIN | EPOLLET, 4));
    told(ep, 8, 0);
    T(close(p[0]));
    _exit(0);
  }
  wait(0);
  told(ep, 8, 0);
  close(q[0]);
  close(p[0]);
  told(ep, 8, 0);
  close(ep);
  T(add(ep, q[1], EPOLLOUT, 1));
  int r[2];
  pipe(r);
  ep = list();
  T(add(ep, r[0], EPOLLIN | EPOLLET, 9));
  int other = dup(ep);
  close(ep);
  write(r[1], "x", 1);
  told(other, 8, 0);
  close(other);
}

static void sockets(void) {
  int s[2], ep = list();
  static char block[400000];
  socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, s);
  T(add(ep, s[0], EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, 1));
  T(add(ep, s[1], EPOLLIN | EPOLLOUT | EPOLLRDHUP, 2));
  told(ep, 8, 0);
  told(ep, 8, 0);
  T(write(s[1], "abc", 3));
  told(ep, 8, 0);
  told(ep, 8, 0);
  T(read(s[0], block, 2));
  told(ep, 8, 0);
  T(read(s[0], block, 2));
  told(ep, 8, 0);
  T(mod(ep, s[1], EPOLLOUT | EPOLLET, 2));
  told(ep, 8, 0);
  long sent = 0, n;
  while ((n = write(s[1], block, 50000)) > 0) sent += n;
  printf("     %d\n", sent > 100000);
  told(ep, 8, 0);
  while (read(s[0], block, 50000) > 0) {}
  told(ep, 8, 0);
  T(shutdown(s[1], SHUT_WR));
  told(ep, 8, 0);
  told(ep, 8, 0);
  T(mod(ep, s[0], EPOLLIN | EPOLLET, 3));
  told(ep, 8, 0);
  T(close(s[1]));
  told(ep, 8, 0);
  told(ep, 8, 0);
  close(s[0]);
  socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, s);
  T(add(ep, s[0], EPOLLIN | EPOLLET, 4));
  send(s[1], "a", 1, 0);
  send(s[1], "b", 1, 0);
  told(ep, 8, 0);
  recv(s[0], block, 9, 0);
  told(ep, 8, 0);
  send(s[1], "c", 1, 0);
  told(ep, 8, 0);
  close(s[0]), close(s[1]);
  struct sockaddr_un name = {AF_UNIX, "\0loadstone-epolls"};
  int l = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0), c = socket(AF_UNIX, SOCK_STREAM, 0);
  T(add(ep, l, EPOLLIN | EPOLLET, 5));
  T(add(ep, c, EPOLLIN | EPOLLOUT, 6));
  told(ep, 8, 0);
  bind(l, (void *)&name, sizeof name);
  listen(l, 5);
  T(mod(ep, c, EPOLLIN | EPOLLOUT | EPOLLET, 6));
  told(ep, 8, 0);
  T(connect(c, (void *)&name, sizeof name));
  told(ep, 8, 0);
  told(ep, 8, 0);
  int a = accept(l, 0, 0);
  T(add(ep, a, EPOLLIN | EPOLLRDHUP, 7));
  told(ep, 8, 0);
  close(c);
  told(ep, 8, 0);
  told(ep, 8, 0);
  close(a), close(l), close(ep);
}

static void counters(void) {
  uint64_t value = 1;
  int e = eventfd(0, EFD_NONBLOCK), ep = list();
  T(add(ep, e, EPOLLIN | EPOLLOUT | EPOLLET, 1));
  told(ep, 8, 0);
  write(e, &value, 8);
  told(ep, 8, 0);
  write(e, &value, 8);
  told(ep, 8, 0);
  told(ep, 8, 0);
  read(e, &value, 8);
  told(ep, 8, 0);
  value = ~1ull;
  write(e, &value, 8);
  told(ep, 8, 0);
  int t = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
  struct itimerspec soon = {{0, 0}, {0, 5000000}};
  T(add(ep, t, EPOLLIN | EPOLLET, 2));
  T(timerfd_settime(t, 0, &soon, 0));
  told(ep, 8, -1);
  told(ep, 8, 30);
  T(read(t, &value, 8));
  T(timerfd_settime(t, 0, &soon, 0));
  usleep(20000);
  told(ep, 8, 0);
  told(ep, 8, 0);
  T(mod(ep, t, EPOLLIN, 3));
  told(ep, 8, 0);
  told(ep, 8, 0);
  read(t, &value, 8);
  told(ep, 8, 0);
  close(t), close(e), close(ep);
}

static void signals(void) {
  sigset_t set;
  struct signalfd_siginfo info;
  sigemptyset(&set);
  sigaddset(&set, SIGUSR1);
  sigaddset(&set, SIGUSR2);
  sigprocmask(SIG_BLOCK, &set, 0);
  sigdelset(&set, SIGUSR2);
  int s = signalfd(-1, &set, SFD_NONBLOCK), ep = list();
  T(add(ep, s, EPOLLIN | EPOLLET, 1));
  told(ep, 8, 0);
  kill(getpid(), SIGUSR2);
  told(ep, 8, 0);
  kill(getpid(), SIGUSR1);
  told(ep, 8, 0);
  told(ep, 8, 0);
  kill(getpid(), SIGUSR1);
  told(ep, 8, 0);
  T(read(s, &info, sizeof info));
  told(ep, 8, 0);
  close(s), close(ep);
}

/* Wait until the kernel's work queue has brought so many bytes, and then has woken who is to be told. */
static void arrived(int fd, int bytes) {
  for (int there = 0; there < bytes; ioctl(fd, FIONREAD, &there)) usleep(1000);
  usleep(10000);
}

static void terminals(void) {
  int m, s, ep = list();
  char text[100];
  openpty(&m, &s, 0, 0, 0);
  fcntl(m, F_SETFL, O_NONBLOCK);
  fcntl(s, F_SETFL, O_NONBLOCK);
  T(add(ep, s, EPOLLIN | EPOLLET, 1));
  T(add(ep, m, EPOLLIN | EPOLLET, 2));
  told(ep, 8, 0);
  write(m, "ab", 2);
  arrived(m, 2);
  told(ep, 8, 0);
  write(m, "\n", 1);
  arrived(s, 3), arrived(m, 4);
  told(ep, 8, 0);
  told(ep, 8, 0);
  T(read(s, text, 100));
  T(read(m, text, 100));
  told(ep, 8, 0);
  write(s, "x\n", 2);
  arrived(m, 3);
  told(ep, 8, 0);
  close(s);
  told(ep, 8, 0);
  told(ep, 8, 0);
  T(mod(ep, m, EPOLLIN, 3));
  told(ep, 8, 0);
  close(m);
  told(ep, 8, 0);
  close(ep);
}

static void processes(void) {
  int ep = list(), child = fork();
  if (!child) {
    usleep(2000);
    _exit(0);
  }
  int p = S(pidfd_open, child, 0);
  T(add(ep, p, EPOLLIN | EPOLLET, 1));
  told(ep, 8, -1);
  told(ep, 8, 0);
  waitpid(child, 0, 0);
  close(p), close(ep);
}

static void nested(void) {
  int p[2], q[2], in = list(), out = list();
  char c;
  pipe(p), pipe(q);
  T(add(in, p[0], EPOLLIN | EPOLLET, 1));
  T(add(in, q[0], EPOLLIN, 2));
  T(add(out, in, EPOLLIN | EPOLLET, 9));
  told(out, 8, 0);
  write(p[1], "x", 1);
  told(out, 8, 0);
  told(out, 8, 0);
  write(p[1], "x", 1);
  told(out, 8, 0);
  told(in, 8, 0);
  told(in, 8, 0);
  write(q[1], "x", 1);
  told(out, 8, 0);
  T(mod(out, in, EPOLLIN, 8));
  told(out, 8, 0);
  told(in, 8, 0);
  told(out, 8, 0);
  struct pollfd f[2] = {{in, POLLIN, 0}, {out, POLLIN | POLLOUT, 0}};
  T(poll(f, 2, 0));
  printf("     %x %x\n", f[0].revents, f[1].revents);
  read(q[0], &c, 1);
  T(poll(f, 2, 0));
  told(out, 8, 0);
  if (!fork()) {
    usleep(5000);
    write(q[1], "x", 1);
    _exit(0);
  }
  told(out, 8, -1);
  T(poll(f, 2, -1));
  wait(0);
  read(q[0], &c, 1);
  if (!fork()) {
    usleep(5000);
    write(q[1], "x", 1);
    _exit(0);
  }
  T(poll(f, 2, -1));
  wait(0);
  close(p[0]), close(q[0]);
  told(in, 8, 0);
  told(out, 8, 0);
  close(in);
  told(out, 8, 0);
  T(epoll_ctl(out, EPOLL_CTL_DEL, in, 0));
  close(out);
}

static void refusals(void) {
  int p[2], ep = list(), other = list();
  pipe(p);
  mkdir("d", 0700);
  T(add(ep, open("/dev/null", O_RDWR), EPOLLIN, 1));
  T(add(ep, open("/dev/zero", O_RDWR), EPOLLIN, 1));
  T(add(ep, open("d", O_RDONLY), EPOLLIN, 1));
  T(add(ep, open("d", O_PATH), EPOLLIN, 1));
  T(add(ep, memfd_create("m", 0), EPOLLIN, 1));
  T(add(ep, open("/proc/self/status", O_RDONLY), EPOLLIN, 1));
  T(add(ep, p[0], EPOLLIN | EPOLLEXCLUSIVE | EPOLLONESHOT, 1));
  T(add(ep, p[0], EPOLLIN | EPOLLEXCLUSIVE | EPOLLRDHUP, 1));
  T(add(ep, other, EPOLLIN | EPOLLEXCLUSIVE, 1));
  T(add(ep, p[0], EPOLLIN | EPOLLEXCLUSIVE | EPOLLET, 1));
  T(mod(ep, p[0], EPOLLIN | EPOLLET, 1));
  T(mod(ep, p[0], EPOLLIN | EPOLLEXCLUSIVE, 1));
  T(epoll_ctl(ep, EPOLL_CTL_DEL, p[0], 0));
  T(mod(ep, p[0], EPOLLIN, 1));
  T(add(p[0], p[1], EPOLLIN, 1));
  T(epoll_wait(p[0], NOWHERE, 1, 0));
  struct epoll_event *page = mmap(0, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  mprotect((char *)page + 4096, 4096, PROT_NONE);
  struct epoll_event *edge = (void *)((char *)page + 4096 - 12);
  int q[2];
  pipe(q);
  write(p[1], "x", 1), write(q[1], "x", 1);
  T(add(ep, p[0], EPOLLIN | EPOLLET, 1));
  T(add(ep, q[0], EPOLLIN | EPOLLET, 2));
  T(epoll_wait(ep, edge, 2, 0)); /* the second does not fit, and is not lost */
  printf("     %d\n", (int)edge->data.u64);
  T(epoll_wait(ep, (void *)((char *)page + 4096), 2, 0));
  told(ep, 8, 0);
  close(ep);
}

/* One event wakes one of those who wait at a list, and one of the lists that are exclusive. */
static int shared, pipes_of[2];
static _Atomic int woken;
static _Atomic pid_t waiting[4];

/* Wait for the event until a signal ends it. */
static void wait_at(int ep, _Atomic pid_t *number) {
  struct epoll_event e;
  *number = gettid();
  if (epoll_wait(ep, &e, 1, -1) == 1) woken++;
}

static void *waiter(void *number) {
  wait_at(shared, number);
  return 0;
}

static void *exclusive(void *number) {
  int ep = list();
  add(ep, pipes_of[0], EPOLLIN | EPOLLEXCLUSIVE, 1);
  wait_at(ep, number);
  close(ep);
  return 0;
}

static void interrupted(int number) {}

/* The event is to wake so many of four. */
static void herd(void *(*one)(void *), unsigned events, int wanted) {
  pthread_t t[4];
  struct sigaction action = {.sa_handler = interrupted};
  sigaction(SIGALRM, &action, 0);
  pipe(pipes_of);
  shared = list();
  woken = 0;
  if (events) add(shared, pipes_of[0], events, 1);
  for (int i = 0; i < 4; i++) waiting[i] = 0, pthread_create(t + i, 0, one, &waiting[i]);
  for (int i = 0; i < 4; i++) {
    while (!waiting[i]) usleep(1000);
    thread_asleep(waiting[i]);
  }
  write(pipes_of[1], "x", 1);
  while (woken < wanted) usleep(1000);
  usleep(50000); /* nobody else wakes */
  printf("     %d of 4\n", woken);
  for (int i = 0; i < 4; i++) pthread_kill(t[i], SIGALRM), pthread_join(t[i], 0);
  close(pipes_of[0]), close(pipes_of[1]), close(shared);
}

static void herds(void) {
  herd(waiter, EPOLLIN | EPOLLET, 1);
  herd(waiter, EPOLLIN | EPOLLONESHOT, 1);
  herd(waiter, EPOLLIN, 4);
  herd(exclusive, 0, 1);
}

static void bits(void) {
  int p[2], ep = list();
  pipe(p);
  write(p[1], "x", 1);
  T(add(ep, p[0], EPOLLRDNORM, 1));
  T(add(ep, p[1], EPOLLWRNORM | EPOLLWRBAND, 2));
  told(ep, 8, 0);
  T(mod(ep, p[0], EPOLLPRI | EPOLLOUT | EPOLLMSG, 3));
  T(mod(ep, p[1], 0, 4));
  told(ep, 8, 0);
  close(p[0]);
  told(ep, 8, 0);
  close(ep);
}

/* The mask is read before anybody looks whether something has occurred. */
static void masks(void) {
  int p[2], ep = list();
  struct epoll_event event;
  pipe(p);
  write(p[1], "x", 1);
  T(add(ep, p[0], EPOLLIN, 1));
  T(S(epoll_pwait, ep, &event, 1, 0, NOWHERE, 8));
  T(S(epoll_pwait, ep, &event, 1, 0, KERNEL, 8));
  T(S(epoll_pwait, ep, &event, 1, 0, &event, 7));
  T(S(epoll_pwait, ep, &event, 0, 0, NOWHERE, 8));
  T(S(epoll_pwait, 9999, &event, 1, 0, NOWHERE, 8));
  T(S(epoll_pwait2, ep, &event, 1, NOWHERE, &event, 7));
  T(S(epoll_pwait2, ep, &event, 1, 0, &event, 7));
  T(S(epoll_pwait, ep, &event, 1, 0, 0, 7));
  close(ep), close(p[0]), close(p[1]);
}

int main(int count, char **arguments) {
  setvbuf(stdout, 0, _IONBF, 0);
  pipes(), once(), order(), duplicates(), sockets(), counters(), signals(), terminals(), processes(), nested();
  refusals(), bits(), masks(), herds();
}

#include "check.h"

static void polled(struct pollfd *f, int n, int timeout) {
  int r = poll(f, n, timeout);
  printf("     poll %d:", r);
  for (int i = 0; i < n; i++) printf(" %d:%x", f[i].fd, f[i].revents);
  printf("\n");
}

static void epolls(int r, int w) {
  struct epoll_event e = {EPOLLIN, {.u64 = 77}}, out[4];
  int ep = epoll_create1(EPOLL_CLOEXEC);
  T(epoll_create(0));
  T(epoll_create1(1));
  T(epoll_ctl(ep, EPOLL_CTL_ADD, r, &e));
  T(epoll_ctl(ep, EPOLL_CTL_ADD, r, &e));
  T(epoll_ctl(ep, EPOLL_CTL_MOD, w, &e));
  T(epoll_ctl(ep, EPOLL_CTL_DEL, w, &e));
  T(epoll_ctl(ep, EPOLL_CTL_ADD, ep, &e));
  T(epoll_ctl(ep, EPOLL_CTL_ADD, 99, &e));
  T(epoll_ctl(ep, 9, r, &e));
  T(epoll_ctl(ep, EPOLL_CTL_ADD, w, NOWHERE));
  int file = open("file", O_CREAT | O_RDWR, 0600);
  T(epoll_ctl(ep, EPOLL_CTL_ADD, file, &e));
  T(epoll_ctl(r, EPOLL_CTL_ADD, w, &e));
  T(epoll_wait(ep, out, 4, 0));
  T(epoll_wait(ep, out, 4, 20));
  T(epoll_wait(ep, out, 0, 0));
  T(write(w, "x", 1));
  T(epoll_wait(ep, out, 4, -1));
  printf("     %x %ld\n", out[0].events, (long)out[0].data.u64);
  T(epoll_wait(ep, out, 4, 0));
  e.events = EPOLLIN | EPOLLONESHOT;
  T(epoll_ctl(ep, EPOLL_CTL_MOD, r, &e));
  T(epoll_wait(ep, out, 4, 0));
  T(epoll_wait(ep, out, 4, 0));
  e.events = EPOLLOUT | EPOLLET;
  T(epoll_ctl(ep, EPOLL_CTL_ADD, w, &e));
  T(epoll_wait(ep, out, 4, 0));
  T(epoll_wait(ep, out, 4, 0));
  T(epoll_ctl(ep, EPOLL_CTL_DEL, w, 0));
  T(epoll_wait(ep, NOWHERE, 4, 0));
  char c;
  T(read(ep, &c, 1));
  T(read(r, &c, 1));
}

/* Lists in lists: at most five in a row, and never in a circle. What is in the innermost wakes the outermost. */
static void nested(int r) {
  int e[12];
  struct epoll_event v = {EPOLLIN, {.u64 = 5}}, out[2];
  for (int i = 0; i < 12; i++) e[i] = epoll_create1(0);
  for (int i = 8; i >= 0; i--) T(epoll_ctl(e[i], EPOLL_CTL_ADD, e[i + 1], &v));
  T(epoll_ctl(e[3], EPOLL_CTL_ADD, e[1], &v));
  T(epoll_ctl(e[11], EPOLL_CTL_ADD, e[0], &v));
  T(epoll_ctl(e[2], EPOLL_CTL_ADD, r, &v));
  struct pollfd f = {e[1], POLLIN, 0};
  polled(&f, 1, 0);
  T(epoll_wait(e[0], out, 2, 0));
}

static void counters(void) {
  uint64_t value = 3;
  int e = eventfd(5, EFD_NONBLOCK);
  struct pollfd f = {e, POLLIN | POLLOUT, 0};
  polled(&f, 1, 0);
  T(write(e, &value, 8));
  T(read(e, &value, 8));
  T(value);
  T(read(e, &value, 8));
  T(read(e, &value, 4));
  value = ~0ull;
  T(write(e, &value, 8));
  value = ~0ull - 1;
  T(write(e, &value, 8));
  polled(&f, 1, 0);
  value = 1;
  T(write(e, &value, 8));
  e = eventfd(2, EFD_SEMAPHORE | EFD_NONBLOCK);
  T(read(e, &value, 8));
  T(value);
  T(read(e, &value, 8));
  T(read(e, &value, 8));
  T(eventfd(0, 4));
}

int main(void) {
  int p[2], q[2];
  char c;
  setvbuf(stdout, 0, _IONBF, 0);
  T(pipe(p));
  T(pipe(q));
  struct pollfd f[3] = {{p[0], POLLIN, 0}, {p[1], POLLOUT, 0}, {-5, POLLIN, 7}};
  polled(f, 3, 0);
  T(write(p[1], "x", 1));
  polled(f, 3, -1);
  T(read(p[0], &c, 1));
  polled(f, 1, 20);
  struct pollfd g[3] = {{99, POLLIN, 0}, {q[0], POLLIN, 0}, {open("/dev/null", O_RDWR), POLLIN | POLLOUT, 0}};
  polled(g, 3, -1);
  T(close(q[1]));
  polled(g + 1, 1, -1);
  T(poll(NOWHERE, 1, 0));
  T(poll(0, 0, 5));
  T(S(poll, f, 1L << 30, 0));
  struct timespec t = {0, 0}, odd = {0, -1}, brief = {0, 20000000};
  T(ppoll(f, 1, &t, 0));
  T(ppoll(f, 1, &odd, 0));
  T(ppoll(f, 1, &brief, 0));
  T(S(ppoll, f, 1, &brief, &t, 4));
  fd_set in, out;
  FD_ZERO(&in); FD_ZERO(&out);
  FD_SET(p[0], &in); FD_SET(p[1], &out);
  struct timeval v = {0, 0};
  T(select(p[1] + 1, &in, &out, 0, &v));
  printf("     %d %d\n", FD_ISSET(p[0], &in), FD_ISSET(p[1], &out));
  FD_ZERO(&in); FD_SET(p[0], &in);
  v.tv_usec = 20000;
  T(select(p[1] + 1, &in, 0, 0, &v));
  printf("     left %ld %ld\n", v.tv_sec, v.tv_usec);
  FD_SET(63, &in);
  T(select(64, &in, 0, 0, &v));
  T(select(-1, &in, 0, 0, &v));
  v.tv_sec = -1;
  T(select(0, 0, 0, 0, &v));
  T(write(p[1], "y", 1));
  FD_ZERO(&in); FD_SET(p[0], &in);
  T(select(p[1] + 1, &in, 0, 0, 0));
  T(pselect(p[1] + 1, &in, 0, 0, &t, 0));
  T(read(p[0], &c, 1));
  epolls(p[0], p[1]);
  nested(q[0]);
  counters();
  return 0;
}

/* TCP and UDP over the loopback: names, connecting, refusing, ending, options, what poll says. */
#include "check.h"
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/un.h>

static struct sockaddr_in at(const char *ip, int port) {
  struct sockaddr_in a = {AF_INET, htons(port)};
  inet_pton(AF_INET, ip, &a.sin_addr);
  return a;
}

static struct sockaddr_in6 at6(const char *ip, int port) {
  struct sockaddr_in6 a = {AF_INET6, htons(port)};
  inet_pton(AF_INET6, ip, &a.sin6_addr);
  return a;
}

static int port_of(int s) {
  struct sockaddr_storage a;
  socklen_t n = sizeof a;
  getsockname(s, (void *)&a, &n);
  return ntohs(((struct sockaddr_in *)&a)->sin_port);
}

/* An address; its port only as none, or as one of those that are known. */
static int known[8], knowns;
static void name(const char *what, int result, struct sockaddr_storage *a, socklen_t n) {
  char text[100] = "";
  if (result < 0) {
    printf("     %s: %s\n", what, strerrorname_np(errno));
    return;
  }
  int port = ntohs(((struct sockaddr_in *)a)->sin_port), which = port ? 9 : 0;
  if (a->ss_family == AF_INET) inet_ntop(AF_INET, &((struct sockaddr_in *)a)->sin_addr, text, 100);
  if (a->ss_family == AF_INET6) inet_ntop(AF_INET6, &((struct sockaddr_in6 *)a)->sin6_addr, text, 100);
  for (int i = 0; i < knowns; i++)
    if (known[i] == port) which = i + 1;
  printf("     %s: %d %s %d, %d bytes\n", what, a->ss_family, text, which, n);
}

static void names(int s) {
  struct sockaddr_storage a = {0};
  socklen_t n = sizeof a;
  int r = getsockname(s, (void *)&a, &n);
  name("name", r, &a, n);
  n = sizeof a;
  r = getpeername(s, (void *)&a, &n);
  name("peer", r, &a, n);
}

/* Wait for what the kernel brings over the loopback in its own time. */
static void until(int s, int events) {
  struct pollfd p = {s, events, 0};
  while (!(p.revents & events)) poll(&p, 1, 100);
}

static void polled_at(int line, int s) {
  struct pollfd p = {s, 0x3fff, 0};
  poll(&p, 1, 0);
  int error = 0;
  socklen_t n = 4;
  getsockopt(s, SOL_SOCKET, SO_ERROR, &error, &n);
  printf("%4d poll %x, error %s\n", line, p.revents, error ? strerrorname_np(error) : "0");
}
#define polled(s) polled_at(__LINE__, s)

static int tcp(int flags) { return socket(AF_INET, SOCK_STREAM | flags, 0); }

static int GET(int s, int level, int option) {
  int got = -1;
  socklen_t n = 4;
  return getsockopt(s, level, option, &got, &n) ? -1 : got;
}

static void making(void) {
  T(socket(AF_INET, SOCK_STREAM, 17) < 0);
  T(socket(AF_INET, SOCK_DGRAM, 6));
  T(socket(AF_INET, SOCK_SEQPACKET, 0));
  T(socket(AF_INET, SOCK_STREAM, 999));
  T(socketpair(AF_INET, SOCK_STREAM, 0, (int[2]){0, 0}));
  int s = tcp(0);
  names(s);
  polled(s);
  struct sockaddr_in a = at("127.0.0.1", 0), far = at("127.0.0.1", 9), b = at("1.2.3.4", 0);
  char c[10];
  T(recv(s, c, 1, MSG_DONTWAIT));
  T(send(s, c, 1, MSG_NOSIGNAL));
  T(shutdown(s, SHUT_WR));
  T(accept(s, 0, 0));
  T(bind(s, (void *)&b, sizeof b));
  T(bind(s, (void *)&a, 8));
  a.sin_family = AF_INET6;
  T(bind(s, (void *)&a, sizeof a));
  a.sin_family = AF_INET;
  T(bind(s, (void *)&a, sizeof a));
  T(port_of(s) > 1024);
  T(bind(s, (void *)&a, sizeof a));
  T(connect(s, (void *)&far, sizeof far));
  T(connect(s, (void *)&far, 8));
  polled(s);
  close(s);
  struct sockaddr_in6 a6 = at6("::1", 0);
  s = socket(AF_INET6, SOCK_STREAM, 0);
  T(bind(s, (void *)&a6, 20));
  T(bind(s, (void *)&a, sizeof a));
  names(s);
  close(s);
}

static void options(void) {
  int s = tcp(0), u = socket(AF_INET, SOCK_DGRAM, 0), v = socket(AF_INET6, SOCK_STREAM, 0), one = 1;
  T(GET(s, SOL_SOCKET, SO_TYPE));
  T(GET(s, SOL_SOCKET, SO_DOMAIN));
  T(GET(s, SOL_SOCKET, SO_PROTOCOL));
  T(GET(u, SOL_SOCKET, SO_PROTOCOL));
  T(GET(v, SOL_SOCKET, SO_DOMAIN));
  T(GET(s, SOL_SOCKET, SO_RCVBUF));
  T(GET(s, SOL_SOCKET, SO_SNDBUF));
  T(GET(u, SOL_SOCKET, SO_SNDBUF));
  T(GET(s, IPPROTO_TCP, TCP_NODELAY));
  T(setsockopt(s, IPPROTO_TCP, TCP_NODELAY, &one, 4));
  T(GET(s, IPPROTO_TCP, TCP_NODELAY));
  T(setsockopt(u, IPPROTO_TCP, TCP_NODELAY, &one, 4));
  T(setsockopt(s, IPPROTO_TCP, 999, &one, 4));
  T(GET(s, IPPROTO_IP, IP_TTL));
  T(GET(s, IPPROTO_IP, IP_TOS));
  T(GET(v, IPPROTO_IPV6, IPV6_V6ONLY));
  T(setsockopt(v, IPPROTO_IPV6, IPV6_V6ONLY, &one, 4));
  T(GET(v, IPPROTO_IPV6, IPV6_V6ONLY));
  T(GET(s, IPPROTO_IPV6, IPV6_V6ONLY));
  T(setsockopt(s, SOL_SOCKET, SO_KEEPALIVE, &one, 4));
  T(GET(s, SOL_SOCKET, SO_KEEPALIVE));
  T(setsockopt(s, IPPROTO_TCP, TCP_NODELAY, &one, 2));
  close(s), close(u), close(v);
}

static int listener(const char *ip, int backlog) {
  int s = tcp(0), one = 1;
  struct sockaddr_in a = at(ip, 0);
  setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &one, 4);
  bind(s, (void *)&a, sizeof a);
  listen(s, backlog);
  known[knowns++ % 8] = port_of(s);
  return s;
}

static void connections(void) {
  int l = listener("0.0.0.0", 5), c = tcp(0), s, one = 1;
  struct sockaddr_in a = at("127.0.0.1", port_of(l)), zero = at("0.0.0.0", port_of(l)), other = at("127.0.0.5", port_of(l));
  struct sockaddr_storage from;
  socklen_t n = sizeof from;
  char text[100];
  names(l);
  polled(l);
  T(GET(l, SOL_SOCKET, SO_ACCEPTCONN));
  T(connect(c, (void *)&a, sizeof a));
  T(connect(c, (void *)&a, sizeof a));
  until(l, POLLIN);
  polled(l);
  polled(c);
  known[knowns++ % 8] = port_of(c);
  names(c);
  s = accept4(l, (void *)&from, &n, SOCK_CLOEXEC);
  name("from", s, &from, n);
  names(s);
  polled(l);
  T(send(c, "hello", 5, 0));
  until(s, POLLIN);
  polled(s);
  T(ioctl(s, FIONREAD, &one));
  T(one);
  T(recv(s, text, 3, MSG_PEEK));
  T(recv(s, text, 3, 0));
  T(recv(s, text, 30, 0));
  T(recv(s, text, 30, MSG_DONTWAIT));
  T(sendto(s, "to", 2, 0, (void *)&other, sizeof other));
  T(write(s, "more", 4));
  n = sizeof from;
  for (one = 0; one < 6; ioctl(c, FIONREAD, &one)) usleep(100);
  T(recvfrom(c, text, 100, 0, (void *)&from, &n));
  T(n);
  T(shutdown(c, SHUT_WR));
  until(s, POLLRDHUP);
  polled(s);
  polled(c);
  T(recv(s, text, 30, 0));
  T(send(c, "x", 1, MSG_NOSIGNAL));
  T(send(s, "still", 5, 0));
  T(recv(c, text, 30, 0));
  close(s);
  until(c, POLLHUP);
  polled(c);
  T(recv(c, text, 30, 0));
  close(c);
  c = tcp(0);
  T(connect(c, (void *)&zero, sizeof zero));
  s = accept(l, 0, 0);
  close(s);
  until(c, POLLRDHUP);
  polled(c);
  T(send(c, "x", 1, MSG_NOSIGNAL));
  until(c, POLLHUP);
  T(send(c, "x", 1, MSG_NOSIGNAL));
  T(recv(c, text, 1, 0));
  polled(c);
  close(c);
  c = tcp(0);
  T(connect(c, (void *)&other, sizeof other));
  names(c);
  s = accept(l, 0, 0);
  T(send(c, "unread", 6, 0));
  until(s, POLLIN);
  close(s);
  until(c, POLLERR);
  polled(c);
  T(recv(c, text, 1, 0));
  T(send(c, "x", 1, MSG_NOSIGNAL));
  close(c);
  c = tcp(0);
  T(connect(c, (void *)&a, sizeof a));
  close(l);
  T(recv(c, text, 1, 0));
  close(c);
  c = tcp(0);
  T(connect(c, (void *)&a, sizeof a));
  T(recv(c, text, 1, MSG_DONTWAIT));
  close(c);
}

static void without_waiting(void) {
  int l = listener("127.0.0.1", 5), c = tcp(SOCK_NONBLOCK), d = tcp(SOCK_NONBLOCK);
  struct sockaddr_in a = at("127.0.0.1", port_of(l)), none = at("127.0.0.1", 9);
  char text[10];
  T(connect(c, (void *)&a, sizeof a));
  until(c, POLLOUT);
  polled(c);
  T(connect(c, (void *)&a, sizeof a));
  T(connect(c, (void *)&a, sizeof a));
  T(recv(c, text, 1, 0));
  T(connect(d, (void *)&none, sizeof none));
  struct pollfd p = {d, POLLIN | POLLOUT | POLLRDHUP, 0};
  T(poll(&p, 1, -1));
  printf("     %x\n", p.revents);
  T(GET(d, SOL_SOCKET, SO_ERROR));
  T(GET(d, SOL_SOCKET, SO_ERROR));
  T(connect(d, (void *)&none, sizeof none));
  T(connect(d, (void *)&none, sizeof none));
  until(d, POLLERR);
  T(connect(d, (void *)&a, sizeof a));
  T(send(d, "x", 1, 0));
  close(c), close(d), close(l);
}

static void ports(void) {
  int a = tcp(0), b = tcp(0), one = 1;
  struct sockaddr_in any = at("0.0.0.0", 0), lo = at("127.0.0.1", 0), two = at("127.0.0.2", 0);
  bind(a, (void *)&any, sizeof any);
  any.sin_port = lo.sin_port = two.sin_port = htons(port_of(a));
  T(bind(b, (void *)&any, sizeof any));
  T(bind(b, (void *)&lo, sizeof lo));
  setsockopt(a, SOL_SOCKET, SO_REUSEADDR, &one, 4);
  T(bind(b, (void *)&lo, sizeof lo));
  setsockopt(b, SOL_SOCKET, SO_REUSEADDR, &one, 4);
  T(bind(b, (void *)&lo, sizeof lo));
  T(listen(a, 1));
  T(listen(b, 1));
  close(a), close(b);
  a = tcp(0), b = tcp(0);
  T(bind(a, (void *)&lo, sizeof lo));
  T(bind(b, (void *)&two, sizeof two));
  T(listen(a, 1));
  T(listen(b, 1));
  int c = tcp(0);
  T(bind(c, (void *)&any, sizeof any));
  close(a), close(b), close(c);
  a = socket(AF_INET6, SOCK_STREAM, 0), b = tcp(0);
  struct sockaddr_in6 all = at6("::", 0);
  T(bind(a, (void *)&all, sizeof all));
  lo.sin_port = htons(port_of(a));
  T(bind(b, (void *)&lo, sizeof lo));
  T(listen(a, 5));
  T(connect(b, (void *)&lo, sizeof lo));
  known[knowns++ % 8] = port_of(a), known[knowns++ % 8] = port_of(b);
  c = accept(a, 0, 0);
  names(a);
  names(b);
  names(c);
  close(b), close(c);
  struct sockaddr_in6 here = at6("::1", port_of(a));
  b = socket(AF_INET6, SOCK_STREAM, 0);
  T(connect(b, (void *)&here, sizeof here));
  known[knowns++ % 8] = port_of(b);
  names(b);
  close(a), close(b);
  a = tcp(0);
  T(listen(a, 5));
  T(port_of(a) > 0);
  close(a);
}

static void datagrams(void) {
  int early = socket(AF_INET, SOCK_DGRAM, 0);
  T(send(early, "x", 1, 0));
  T(bind(early, (void *)&(struct sockaddr_in){AF_INET}, sizeof(struct sockaddr_in)));
  close(early);
  int a = socket(AF_INET, SOCK_DGRAM, 0), b = socket(AF_INET, SOCK_DGRAM, 0), c = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
  struct sockaddr_in lo = at("127.0.0.1", 0), to, none = at("127.0.0.1", 9);
  struct sockaddr_storage from;
  socklen_t n = sizeof from;
  static char text[70000];
  polled(a);
  T(recv(a, text, 1, MSG_DONTWAIT));
  T(bind(a, (void *)&lo, sizeof lo));
  to = at("127.0.0.1", port_of(a));
  known[0] = port_of(a), knowns = 2;
  T(sendto(b, "first", 5, 0, (void *)&to, sizeof to));
  T(sendto(b, "", 0, 0, (void *)&to, sizeof to));
  T(sendto(b, "third", 5, 0, (void *)&to, sizeof to));
  known[1] = port_of(b);
  until(a, POLLIN);
  polled(a);
  int count;
  ioctl(a, FIONREAD, &count);
  printf("     %d\n", count);
  long got = recvfrom(a, text, 3, 0, (void *)&from, &n);
  name("from", got, &from, n);
  T(got);
  T(recv(a, text, 10, 0));
  T(recv(a, text, 3, MSG_TRUNC));
  names(b);
  T(sendto(b, text, 65507, 0, (void *)&to, sizeof to));
  T(sendto(b, text, 65508, 0, (void *)&to, sizeof to));
  T(recv(a, text, sizeof text, 0));
  T(sendto(b, "x", 1, 0, (void *)&none, sizeof none));
  polled(b);
  T(connect(b, (void *)&none, sizeof none));
  T(send(b, "x", 1, 0));
  until(b, POLLERR);
  struct pollfd p = {b, POLLIN, 0};
  T(poll(&p, 1, 0));
  T(send(b, "x", 1, 0));
  T(send(b, "x", 1, 0));
  until(b, POLLERR);
  T(recv(b, text, 1, MSG_DONTWAIT));
  T(recv(b, text, 1, MSG_DONTWAIT));
  T(connect(b, (void *)&to, sizeof to));
  T(send(b, "y", 1, 0));
  until(a, POLLIN);
  T(connect(a, (void *)&(struct sockaddr_in){0}, sizeof to));
  T(sendto(c, "z", 1, 0, (void *)&to, sizeof to));
  T(recv(a, text, 10, 0));
  T(recv(a, text, 10, MSG_DONTWAIT)); /* with the connection went a port that nobody chose */
  names(a);
  names(b);
  T(sendto(c, "z", 1, 0, (void *)&to, 4));
  T(shutdown(c, SHUT_RD));
  T(shutdown(b, SHUT_RD));
  T(recv(b, text, 10, 0));
  T(listen(a, 4));
  T(accept(a, 0, 0));
  close(a), close(b), close(c);
}

/* Much in both directions, through a server that forks. */
static void much(void) {
  int l = listener("127.0.0.1", 50);
  struct sockaddr_in a = at("127.0.0.1", port_of(l));
  static char block[100000];
  if (!fork()) {
    for (int i = 0; i < 20; i++) {
      int s = accept(l, 0, 0);
      if (!fork()) {
        long n;
        while ((n = read(s, block, sizeof block)) > 0) write(s, block, n);
        _exit(0);
      }
      close(s);
    }
    while (wait(0) > 0) {}
    _exit(0);
  }
  unsigned long sum = 0;
  for (int i = 0; i < 20; i++) {
    int c = tcp(0);
    connect(c, (void *)&a, sizeof a);
    for (int k = 0; k < 4; k++) {
      memset(block, i + k, sizeof block);
      write(c, block, sizeof block);
    }
    shutdown(c, SHUT_WR);
    long n;
    while ((n = read(c, block, 7777)) > 0)
      for (long k = 0; k < n; k++) sum = sum * 31 + block[k];
    close(c);
  }
  wait(0);
  printf("     %lx\n", sum);
}

int main(void) {
  setvbuf(stdout, 0, _IONBF, 0);
  signal(SIGPIPE, SIG_IGN);
  alarm(100);
  making(), options(), connections(), without_waiting(), ports(), datagrams(), much();
}

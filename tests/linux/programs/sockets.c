#include "check.h"
#include <sys/socket.h>
#include <stddef.h>
#include <sys/un.h>

static struct sockaddr_un address(const char *path) {
  struct sockaddr_un a = {AF_UNIX};
  strcpy(a.sun_path, path);
  return a;
}

static int receive_with(int fd, struct msghdr *m, int flags) {
  int n = recvmsg(fd, m, flags);
  printf("     recvmsg %d, flags %x, control %zu, name %u\n", n, m->msg_flags, m->msg_controllen, m->msg_namelen);
  for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c && n >= 0; c = CMSG_NXTHDR(m, c)) {
    printf("     level %d type %d length %zu", c->cmsg_level, c->cmsg_type, c->cmsg_len);
    if (c->cmsg_type == SCM_CREDENTIALS) {
      struct ucred u;
      memcpy(&u, CMSG_DATA(c), sizeof u);
      printf(" own pid %d uid %d gid %d", u.pid == getpid(), u.uid, u.gid);
    }
    puts("");
  }
  return n;
}

static void pairs(int type) {
  int s[2];
  char b[64] = "";
  struct iovec v = {b, sizeof b};
  T(socketpair(AF_UNIX, type, 0, s));
  T(write(s[0], "hello", 5));
  T(write(s[0], "world", 5));
  T(recv(s[1], b, 3, MSG_PEEK));
  T(recv(s[1], b, 3, MSG_TRUNC));
  T(recv(s[1], b, 20, MSG_DONTWAIT));
  printf("     %.20s\n", b);
  T(recv(s[1], b, 20, MSG_DONTWAIT));
  T(send(s[0], b, 10, MSG_OOB | MSG_DONTWAIT) == -1 && type != SOCK_STREAM);
  T(recv(s[1], b, 20, MSG_DONTWAIT) >= -1);
  struct sockaddr_un a;
  socklen_t len = sizeof a;
  T(getsockname(s[0], (void *)&a, &len));
  printf("     %u\n", len);
  len = sizeof a;
  T(getpeername(s[0], (void *)&a, &len));
  printf("     %u\n", len);
  struct ucred u;
  len = sizeof u;
  T(getsockopt(s[0], SOL_SOCKET, SO_PEERCRED, &u, &len));
  printf("     %u %d %d %d\n", len, u.pid == getpid(), u.uid, u.gid);
  int number = 0;
  int options[] = {SO_TYPE, SO_ERROR, SO_SNDBUF, SO_RCVBUF, SO_PASSCRED, SO_ACCEPTCONN, SO_PROTOCOL, SO_DOMAIN,
                   SO_RCVLOWAT, SO_REUSEADDR, SO_KEEPALIVE, SO_PEEK_OFF, 12345};
  for (unsigned i = 0; i < sizeof options / sizeof *options; i++) {
    len = sizeof number;
    T(getsockopt(s[0], SOL_SOCKET, options[i], &number, &len));
    printf("     %d %u\n", number, len);
  }
  number = 30000;
  T(setsockopt(s[0], SOL_SOCKET, SO_SNDBUF, &number, 4));
  len = sizeof number;
  getsockopt(s[0], SOL_SOCKET, SO_SNDBUF, &number, &len);
  printf("     %d\n", number);
  T(setsockopt(s[0], SOL_SOCKET, SO_SNDBUF, &number, 3));
  T(setsockopt(s[0], SOL_SOCKET, 12345, &number, 4));
  T(setsockopt(s[0], SOL_SOCKET, SO_TYPE, &number, 4));
  struct timeval tv = {0, 20000};
  T(setsockopt(s[1], SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv));
  T(recv(s[1], b, 1, 0));
  T(read(s[1], b, 0));
  number = 1;
  T(setsockopt(s[1], SOL_SOCKET, SO_PASSCRED, &number, 4));
  char control[256];
  struct msghdr m = {0, 0, &v, 1, control, sizeof control, 0};
  T(write(s[0], "creds", 5));
  receive_with(s[1], &m, 0);
  /* files */
  int files[3] = {0, 1, s[0]};
  union { char raw[CMSG_SPACE(sizeof files)]; struct cmsghdr c; } out = {0};
  out.c.cmsg_len = CMSG_LEN(sizeof files);
  out.c.cmsg_level = SOL_SOCKET;
  out.c.cmsg_type = SCM_RIGHTS;
  memcpy(CMSG_DATA(&out.c), files, sizeof files);
  struct iovec w = {"data", 4};
  struct msghdr o = {0, 0, &w, 1, &out, sizeof out.raw, 0};
  T(sendmsg(s[0], &o, 0));
  T(sendmsg(s[0], &o, 0));
  T(write(s[0], "x", 1));
  m.msg_controllen = sizeof control;
  receive_with(s[1], &m, MSG_CMSG_CLOEXEC);
  T(fcntl(s[1] + 1, F_GETFD));
  T(fcntl(s[1] + 3, F_GETFD));
  T(fcntl(s[1] + 4, F_GETFD));
  m.msg_controllen = CMSG_SPACE(sizeof(struct ucred)) + CMSG_LEN(4);
  receive_with(s[1], &m, 0);
  m.msg_controllen = 8;
  receive_with(s[1], &m, 0);
  files[1] = 777;
  memcpy(CMSG_DATA(&out.c), files, sizeof files);
  T(sendmsg(s[0], &o, 0));
  out.c.cmsg_type = 99;
  T(sendmsg(s[0], &o, 0));
  out.c.cmsg_len = 4;
  T(sendmsg(s[0], &o, 0));
  out.c.cmsg_len = CMSG_LEN(sizeof u);
  out.c.cmsg_type = SCM_CREDENTIALS;
  u.pid = getpid(), u.uid = getuid(), u.gid = getgid();
  memcpy(CMSG_DATA(&out.c), &u, sizeof u);
  T(sendmsg(s[0], &o, 0));
  m.msg_controllen = sizeof control;
  receive_with(s[1], &m, 0);
  u.pid = 999999; /* not even root claims to be nobody */
  memcpy(CMSG_DATA(&out.c), &u, sizeof u);
  T(sendmsg(s[0], &o, 0) == -1);
  T(sendmsg(s[0], NOWHERE, 0));
  T(send(s[0], NOWHERE, 10, 0));
  T(send(s[0], "abcdef", 6, 0));
  T(recv(s[1], NOWHERE, 10, 0));
  T(recv(s[1], b, 10, 0) >= -1);
  T(shutdown(s[0], 5));
  T(shutdown(s[0], SHUT_WR));
  T(recv(s[1], b, 10, 0));
  struct pollfd p = {s[1], POLLIN | POLLOUT | POLLRDHUP};
  T(poll(&p, 1, 0));
  printf("     %x\n", p.revents);
  T(close(s[0]));
  T(send(s[1], "x", 1, MSG_NOSIGNAL));
  T(poll(&p, 1, 0));
  printf("     %x\n", p.revents);
  T(close(s[1]));
  for (int fd = 3; fd < 20; fd++) close(fd);
}

static void named(int type, const char *path) {
  int l, c, d;
  struct sockaddr_un a = address(path), b;
  socklen_t len, size = offsetof(struct sockaddr_un, sun_path) + strlen(path) + 1;
  T(l = socket(AF_UNIX, type, 0));
  T(c = socket(AF_UNIX, type | SOCK_NONBLOCK, 0));
  T(connect(c, (void *)&a, size));
  T(bind(l, (void *)&a, 2));
  len = sizeof b;
  T(getsockname(l, (void *)&b, &len));
  printf("     %u %d\n", len, b.sun_path[0]);
  T(close(l));
  T(l = socket(AF_UNIX, type, 0));
  T(bind(l, (void *)&a, 200));
  T(bind(l, (void *)&a, size));
  T(bind(l, (void *)&a, size));
  T(bind(c, (void *)&a, size));
  struct stat st;
  T(stat(path, &st));
  printf("     %o\n", st.st_mode);
  T(open(path, O_RDWR));
  T(accept(c, 0, 0));
  T(listen(c, 1));
  T(type == SOCK_DGRAM ? -1 : connect(c, (void *)&a, size));
  T(listen(l, 1));
  T(connect(c, (void *)&a, size));
  T(type == SOCK_DGRAM ? 0 : connect(c, (void *)&a, size));
  len = sizeof b;
  memset(&b, 0, sizeof b);
  T(getpeername(c, (void *)&b, &len));
  printf("     %u %s\n", len, b.sun_path);
  len = 5;
  T(getpeername(c, (void *)&b, &len));
  printf("     %u\n", len);
  T(send(c, "request", 7, 0));
  if (type != SOCK_DGRAM) {
    len = sizeof b;
    T((d = accept4(l, (void *)&b, &len, SOCK_CLOEXEC)) >= 0);
    printf("     %u\n", len);
    struct ucred u;
    len = sizeof u;
    T(getsockopt(d, SOL_SOCKET, SO_PEERCRED, &u, &len));
    printf("     %d\n", u.pid == getpid());
  } else
    d = l;
  char buffer[32] = "";
  len = sizeof b;
  T(recvfrom(d, buffer, sizeof buffer, 0, (void *)&b, &len));
  printf("     %s %u\n", buffer, len);
  T(sendto(d, "answer", 6, 0, (void *)&a, size));
  T(recv(c, buffer, sizeof buffer, 0));
  T(close(l));
  T(type == SOCK_DGRAM ? -1 : close(d));
  T(send(c, "late", 4, MSG_NOSIGNAL));
  T(connect(c, (void *)&a, size));
  T(unlink(path));
  T(connect(c, (void *)&a, size));
  T(close(c));
}

int main(void) {
  umask(022);
  setvbuf(stdout, 0, _IOLBF, 0);
  signal(SIGPIPE, SIG_IGN);
  int types[] = {SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET};
  for (int i = 0; i < 3; i++) {
    pairs(types[i]);
    named(types[i], "socket");
  }
  T(socket(AF_UNIX, 99, 0));
  T(socket(AF_UNIX, SOCK_STREAM, 99));
  T(socket(AF_UNIX, SOCK_STREAM | 0x10000, 0));
  T(socket(AF_UNIX, SOCK_RDM, 0));
  T(socket(99, SOCK_STREAM, 0));
  T(socketpair(AF_UNIX, SOCK_STREAM, 0, NOWHERE));
  T(accept(0, 0, 0));
  T(listen(99, 0));
  return 0;
}

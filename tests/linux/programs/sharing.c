#include "check.h"
#include <sys/socket.h>
#include <sys/un.h>

/* What processes share: pipes, FIFOs, locks, sockets, memory. Only the parent prints; children tell by their status. */

#define CHILD(...)                                                             \
  ({                                                                           \
    int child_ = fork();                                                       \
    if (!child_) {                                                             \
      __VA_ARGS__;                                                             \
      _exit(0);                                                                \
    }                                                                          \
    child_;                                                                    \
  })

static void ended(int child) {
  int status;
  waitpid(child, &status, 0);
  if (WIFSIGNALED(status))
    printf("     child killed by %d\n", WTERMSIG(status));
  else
    printf("     child exited with %d\n", WEXITSTATUS(status));
}

static int lock(int fd, int command, int kind, int start, int length) {
  struct flock l = {kind, SEEK_SET, start, length};
  return fcntl(fd, command, &l) ? errno : 0;
}

static void until_nobody_reads(int fd) {
  struct pollfd p = {fd, 0};
  while (!(p.revents & POLLERR)) poll(&p, 1, -1);
}

static void pipes(void) {
  int p[2], child;
  char big[200000], b[300000];
  memset(big, 'x', sizeof big);
  pipe(p);
  child = CHILD(close(p[0]); _exit(write(p[1], big, sizeof big) != sizeof big));
  close(p[1]);
  long sum = 0, n;
  while ((n = read(p[0], b, 7001)) > 0) sum += n;
  printf("     %ld bytes, then %ld\n", sum, n);
  ended(child);
  close(p[0]);
  pipe(p);
  child = CHILD(close(p[0]); until_nobody_reads(p[1]); write(p[1], "x", 1); _exit(9));
  close(p[0]);
  ended(child);
  close(p[1]);
  pipe(p);
  child = CHILD(signal(SIGPIPE, SIG_IGN); close(p[0]); _exit(write(p[1], big, sizeof big) == 65536 ? 1 : errno));
  close(p[1]);
  for (int full = 0; full < 65536; ioctl(p[0], FIONREAD, &full)) usleep(1000);
  close(p[0]);
  ended(child);
}

static void fifos(void) {
  char b[20] = "", c;
  int fd, child, go[2];
  pipe(go);
  T(mkfifo("fifo", 0600));
  T(open("fifo", O_WRONLY | O_NONBLOCK));
  child = CHILD(fd = open("fifo", O_WRONLY); write(fd, "through", 7));
  fd = open("fifo", O_RDONLY);
  ssize_t n = read(fd, b, sizeof b);
  printf("     %zd %s, then %zd\n", n, b, read(fd, b, sizeof b));
  ended(child);
  struct pollfd p = {fd, POLLIN};
  T(poll(&p, 1, 0));
  printf("     %x\n", p.revents);
  close(fd);
  T((fd = open("fifo", O_RDONLY | O_NONBLOCK)) >= 0);
  p.fd = fd;
  T(poll(&p, 1, 0));
  T(read(fd, b, 5));
  child = CHILD(int w = open("fifo", O_WRONLY | O_NONBLOCK); write(w, "abc", 3); read(go[0], &c, 1));
  T(poll(&p, 1, -1));
  T(read(fd, b, 5));
  T(read(fd, b, 5));
  write(go[1], "x", 1);
  ended(child);
  T(poll(&p, 1, 0));
  printf("     %x\n", p.revents);
  close(fd);
  T((fd = open("fifo", O_RDWR)) >= 0);
  T(write(fd, "self", 4));
  T(read(fd, b, 10));
  close(fd);
}

static void locks(void) {
  int fd = open("locked", O_RDWR | O_CREAT, 0600), p[2], q[2], child;
  char c;
  pipe(p), pipe(q);
  T(lock(fd, F_SETLK, F_WRLCK, 0, 10));
  child = CHILD(
    int own = open("locked", O_RDWR), bad = 0;
    bad |= lock(own, F_SETLK, F_RDLCK, 5, 1) != EAGAIN;
    bad |= lock(own, F_SETLK, F_WRLCK, 20, 10) != 0;
    write(p[1], "x", 1);
    bad |= lock(own, F_SETLKW, F_WRLCK, 0, 5) != 0;
    write(p[1], "y", 1);
    _exit(bad));
  read(p[0], &c, 1);
  struct flock l = {F_RDLCK, SEEK_SET, 0, 0};
  T(fcntl(fd, F_GETLK, &l));
  printf("     %d %ld %ld %d\n", l.l_type, (long)l.l_start, (long)l.l_len, l.l_pid == child);
  asleep(child);
  T(lock(fd, F_SETLKW, F_WRLCK, 20, 1) == EDEADLK);
  T(close(dup(fd)));
  read(p[0], &c, 1);
  printf("     closing any descriptor gave the lock back: %c\n", c);
  ended(child);
  T(lock(fd, F_SETLK, F_WRLCK, 0, 0));
  /* locks are not inherited, and released by exit */
  child = CHILD(_exit(lock(fd, F_SETLK, F_WRLCK, 0, 0)));
  ended(child);
  T(lock(fd, F_SETLK, F_UNLCK, 0, 0));
  child = CHILD(lock(fd, F_SETLK, F_WRLCK, 0, 0); write(p[1], "x", 1); read(q[0], &c, 1));
  read(p[0], &c, 1);
  T(lock(fd, F_SETLK, F_RDLCK, 0, 1));
  write(q[1], "x", 1);
  T(lock(fd, F_SETLKW, F_RDLCK, 0, 1));
  ended(child);
  /* an open file description is shared: its locks are everybody's */
  T(lock(fd, F_SETLK, F_UNLCK, 0, 0));
  T(lock(fd, F_OFD_SETLK, F_WRLCK, 0, 0));
  child = CHILD(_exit(lock(fd, F_OFD_SETLK, F_WRLCK, 0, 5)));
  ended(child);
  child = CHILD(_exit(lock(open("locked", O_RDWR), F_OFD_SETLK, F_WRLCK, 0, 5)));
  ended(child);
  T(lock(fd, F_OFD_SETLK, F_UNLCK, 0, 0));
  T(flock(fd, LOCK_EX));
  child = CHILD(int own = open("locked", O_RDWR); int bad = flock(own, LOCK_SH | LOCK_NB) != -1;
                write(p[1], "x", 1); bad |= flock(own, LOCK_SH); _exit(bad));
  read(p[0], &c, 1);
  T(flock(fd, LOCK_SH));
  ended(child);
  /* interrupted */
  struct sigaction a = {.sa_handler = (void (*)(int))ended};
  a.sa_handler = SIG_DFL;
  child = CHILD(flock(open("locked", O_RDWR), LOCK_EX));
  asleep(child);
  kill(child, SIGTERM);
  ended(child);
  close(fd);
}

static void sockets(void) {
  int s[2], child;
  char b[100] = "";
  struct sockaddr_un name = {AF_UNIX, "server"};
  int server = socket(AF_UNIX, SOCK_STREAM, 0);
  T(bind(server, (void *)&name, sizeof name));
  T(listen(server, 5));
  child = CHILD(
    int c = socket(AF_UNIX, SOCK_STREAM, 0);
    int bad = connect(c, (void *)&name, sizeof name);
    write(c, "question", 8);
    bad |= read(c, b, sizeof b) != 6;
    struct ucred u;
    socklen_t len = sizeof u;
    getsockopt(c, SOL_SOCKET, SO_PEERCRED, &u, &len);
    bad |= (u.pid != getppid()) << 1;
    _exit(bad));
  int c = accept(server, 0, 0);
  struct ucred u;
  socklen_t len = sizeof u;
  getsockopt(c, SOL_SOCKET, SO_PEERCRED, &u, &len);
  printf("     peer is the child: %d\n", u.pid == child);
  T(recv(c, b, sizeof b, MSG_WAITALL & 0));
  T(write(c, "answer", 6));
  ended(child);
  T(read(c, b, sizeof b));
  close(c), close(server);
  /* a file goes to another process */
  T(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, s));
  child = CHILD(
    int p[2];
    pipe(p);
    write(p[1], "carried", 7);
    union { char raw[CMSG_SPACE(sizeof(int))]; struct cmsghdr c; } out = {0};
    out.c.cmsg_len = CMSG_LEN(sizeof(int));
    out.c.cmsg_level = SOL_SOCKET;
    out.c.cmsg_type = SCM_RIGHTS;
    memcpy(CMSG_DATA(&out.c), &p[0], sizeof(int));
    struct iovec v = {"fd", 2};
    struct msghdr m = {0, 0, &v, 1, &out, sizeof out.raw, 0};
    _exit(sendmsg(s[0], &m, 0) != 2));
  ended(child);
  char control[100];
  struct iovec v = {b, sizeof b};
  struct msghdr m = {0, 0, &v, 1, control, sizeof control, 0};
  T(recvmsg(s[1], &m, 0));
  int fd;
  memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof fd);
  memset(b, 0, sizeof b);
  T(read(fd, b, sizeof b));
  T(read(fd, b + 20, 20));
  printf("     %s\n", b);
  /* all of it, from a slow sender */
  close(s[0]), close(s[1]);
  socketpair(AF_UNIX, SOCK_STREAM, 0, s);
  child = CHILD(for (int i = 0; i < 5; i++) { write(s[0], "12345", 5); usleep(2000); });
  T(recv(s[1], b, 25, MSG_WAITALL));
  ended(child);
  close(s[0]);
  T(write(s[1], "x", 1) + (signal(SIGPIPE, SIG_IGN) == SIG_ERR));
}

static void memory(void) {
  int *shared = mmap(0, 8192, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  int *private = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  int fd = open("mapped", O_RDWR | O_CREAT, 0600), child;
  ftruncate(fd, 4096);
  int *file = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  shared[0] = private[0] = file[0] = 1;
  child = CHILD(shared[0] = private[0] = file[0] = 2; shared[1500] = 5);
  ended(child);
  printf("     %d %d %d %d\n", shared[0], private[0], file[0], shared[1500]);
  int value = 0;
  T(pread(fd, &value, 4, 0));
  printf("     %d\n", value);
  int memfd = memfd_create("m", 0);
  ftruncate(memfd, 4096);
  child = CHILD(int *own = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, memfd, 0); own[3] = 33);
  ended(child);
  T(pread(memfd, &value, 4, 12));
  printf("     %d\n", value);
  uint64_t count = 0;
  int event = eventfd(0, 0);
  child = CHILD(usleep(10000); count = 5; write(event, &count, 8));
  T(read(event, &count, 8));
  printf("     %lu\n", count);
  ended(child);
  lseek(fd, 0, SEEK_SET);
  child = CHILD(lseek(fd, 100, SEEK_SET));
  ended(child);
  T(lseek(fd, 0, SEEK_CUR));
}

int main(void) {
  setvbuf(stdout, 0, _IOLBF, 0);
  signal(SIGPIPE, SIG_DFL);
  pipes();
  fifos();
  locks();
  memory();
  signal(SIGPIPE, SIG_IGN);
  sockets();
  return 0;
}

#include "check.h"

struct how { uint64_t flags, mode, resolve; };

static long open2(const char *path, uint64_t flags, uint64_t mode, uint64_t resolve, size_t size) {
  struct how how[2] = {{flags, mode, resolve}};
  return S(openat2, AT_FDCWD, path, how, size);
}

/* F_CREATED_QUERY, which kernels before 6.12 do not know. */
static int created(int fd) {
  int answer = fcntl(fd, 1028, 0);
  if (answer < 0 && errno == EINVAL) errno = ENOSYS;
  return answer;
}

static void creations(void) {
  int fd = open("made", O_CREAT | O_RDONLY, 0600);
  T(created(fd));
  T(created(dup(fd)));
  T(created(open("made", O_CREAT | O_RDONLY, 0600)));
  T(created(open("made", O_PATH)));
  T(created(open("/proc/self/fd/3", O_RDONLY)));
  T(created(open("/dev/null", O_CREAT | O_RDWR, 0600)));
  T(created(open(".", O_TMPFILE | O_RDWR, 0600)));
  T(created(memfd_create("x", 0)));
  T(created(9999));
  unlink("made");
  for (fd = 3; fd < 20; fd++) close(fd);
}

int main(void) {
  umask(027);
  creations();
  T(open("none", O_RDONLY));
  T(open("", O_RDONLY));
  T(open(NOWHERE, O_RDONLY));
  T(open(KERNEL, O_RDONLY));
  char *name = malloc(6000);
  memset(name, 'x', 5999), name[5999] = 0;
  T(open(name, O_RDONLY));
  name[300] = 0;
  T(open(name, O_RDONLY));
  T(open("file", O_CREAT | O_EXCL | O_WRONLY, 0666));
  T(open("file", O_CREAT | O_EXCL | O_WRONLY, 0666));
  T(open("file/", O_RDONLY));
  T(open("file/x", O_RDONLY));
  T(open("none/x", O_RDONLY));
  T(open("file", O_DIRECTORY));
  T(open(".", O_RDWR));
  T(open(".", O_CREAT | O_RDONLY, 0600));
  T(open("new/", O_CREAT | O_RDWR, 0600));
  T(open("dir", O_DIRECTORY | O_CREAT | O_RDONLY, 0700));
  T(symlink("file", "link"));
  T(symlink("none", "dangling"));
  T(symlink("loop", "loop"));
  T(open("link", O_RDONLY | O_NOFOLLOW));
  T(open("loop", O_RDONLY));
  T(open("dangling", O_RDONLY));
  T(open("dangling", O_CREAT | O_EXCL | O_WRONLY, 0600));
  T(open("link", O_PATH | O_NOFOLLOW));
  T(open("/dev/null/x", O_RDONLY));
  T(open(".", O_TMPFILE | O_RDONLY, 0600));
  T(open(".", O_TMPFILE | O_RDWR, 0600));
  T(openat(99, "file", O_RDONLY));
  T(openat(99, "/dev/null", O_RDONLY));
  int fd = open("file", O_RDWR | O_APPEND | O_CLOEXEC | O_NONBLOCK);
  T(openat(fd, "file", O_RDONLY));
  printf("F_GETFL %o\n", fcntl(fd, F_GETFL));
  printf("F_GETFD %d\n", fcntl(fd, F_GETFD));
  fd = open("file", O_RDWR | O_CREAT | O_EXCL * 0 | O_TRUNC | O_NOCTTY);
  printf("F_GETFL %o\n", fcntl(fd, F_GETFL));
  fd = open("file", O_PATH | O_RDWR);
  printf("F_GETFL %o\n", fcntl(fd, F_GETFL));
  char c;
  T(read(fd, &c, 1));
  T(fchmod(fd, 0600));
  T(ftruncate(fd, 0));
  T(lseek(fd, 0, SEEK_SET));
  T(ioctl(fd, FIONREAD, &c));
  T(fcntl(fd, F_SETFL, 0));
  struct stat st;
  T(fstat(fd, &st));
  printf("mode %o\n", st.st_mode);
  T(creat("made", 07777));
  stat("made", &st);
  printf("mode %o\n", st.st_mode);
  T(open("file", 0x7f000000 | O_RDONLY));
  T(open2("file", O_RDONLY, 0, 0, 24));
  T(open2("file", O_RDONLY, 0, 0, 23));
  T(open2("file", O_RDONLY, 0, 0, 32));
  T(open2("file", 1ull << 40, 0, 0, 24));
  T(open2("file", O_RDONLY, 0600, 0, 24));
  T(open2("file", O_CREAT, 010000, 0, 24));
  T(open2("file", O_RDONLY, 0, 1 << 20, 24));
  T(open2("file", O_PATH | O_RDWR, 0, 0, 24));
  T(open2("file", O_RDONLY, 0, 8 | 16, 24));
  T(S(openat2, AT_FDCWD, "file", NOWHERE, 24));
  T(close(99));
  T(close(-1));
  T(S(close_range, 5, 3, 0));
  T(S(close_range, 3, 4000, 1 << 7));
  T(S(close_range, 3, ~0u, 4));
  T(fcntl(fd, F_GETFD));
  T(S(close_range, 3, ~0u, 0));
  T(open("file", O_RDONLY));
  struct rlimit limit = {4, 4};
  T(setrlimit(RLIMIT_NOFILE, &limit));
  T(open("never", O_CREAT | O_RDWR, 0600));
  T(access("never", F_OK));
  T(open("none", O_RDONLY));
  T(dup(0));
  T(memfd_create("x", 0));
  limit.rlim_cur = 3;
  close(3);
  T(memfd_create("x", 1 << 10));
  T(memfd_create(NOWHERE, 0));
  T(memfd_create("a name", MFD_CLOEXEC));
  T(fcntl(3, F_GETFD));
  T(write(3, "hello", 5));
  T(lseek(3, 0, SEEK_END));
  return 0;
}

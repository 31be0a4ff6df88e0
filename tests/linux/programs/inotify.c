/* What inotify tells of everything that can be done to files: masks, names, cookies, merging, and the end of watches. */
#include "check.h"
#include <sys/inotify.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/xattr.h>

static int in;

static const char *names[] = {
    "ACCESS", "MODIFY", "ATTRIB", "CLOSE_WRITE", "CLOSE_NOWRITE", "OPEN", "MOVED_FROM", "MOVED_TO", "CREATE", "DELETE",
    "DELETE_SELF", "MOVE_SELF", 0, "UNMOUNT", "Q_OVERFLOW", "IGNORED"};

/* Everything that has come since, cookies by their order. */
static void told(void) {
  static unsigned cookies[100];
  char text[8192] __attribute__((aligned(8)));
  int bytes = 0;
  ioctl(in, FIONREAD, &bytes);
  int got = read(in, text, sizeof text);
  printf("     told, %d bytes:", got > 0 ? got - bytes : got);
  for (char *at = text; at < text + got; at += sizeof(struct inotify_event) + ((struct inotify_event *)at)->len) {
    struct inotify_event *e = (void *)at;
    int cookie = 0;
    if (e->cookie) {
      for (cookie = 1; cookies[cookie] && cookies[cookie] != e->cookie; cookie++) {}
      cookies[cookie] = e->cookie;
    }
    printf(" %d", e->wd);
    for (int i = 0; i < 16; i++)
      if (e->mask >> i & 1) printf("%s%s", i ? " " : " ", names[i] ? names[i] : "?");
    if (e->mask & IN_ISDIR) printf(" ISDIR");
    if (e->mask & ~(IN_ISDIR | 0xffff)) printf(" %x", e->mask);
    if (cookie) printf(" #%d", cookie);
    if (e->len) printf(" %s/%d", *e->name == '#' ? "#" : e->name, e->len); /* # and a number: O_TMPFILE */
    printf(";");
  }
  printf("\n");
}

/* As T, and what was told of it. */
#define E(call) do { T(call); told(); } while (0)

static void files(void) {
  char c[100] = "";
  struct stat s;
  int fd;
  mkdir("d", 0777);
  put("d/old", "some text");
  T(inotify_add_watch(in, "d", IN_ALL_EVENTS));
  told();
  E(fd = open("d/new", O_CREAT | O_RDWR, 0600));
  E(write(fd, "abc", 3));
  E(write(fd, "abc", 0));
  E(pwrite(fd, "abc", 3, 100));
  E(read(fd, c, 10));
  E(lseek(fd, 0, SEEK_SET));
  E(read(fd, c, 1));
  E(read(fd, c, 0));
  E(fchmod(fd, 0640));
  E(fchown(fd, -1, getgid()));
  E(fstat(fd, &s));
  E(ftruncate(fd, 2));
  E(fallocate(fd, 0, 0, 100));
  E(fsync(fd));
  struct iovec v[2] = {{"a", 1}, {"b", 1}};
  E(writev(fd, v, 2));
  E(close(fd));
  T(fd = open("d/old", O_RDONLY));
  E(close(dup(fd)));
  E(close(fd));
  E(close(open("d/old", O_WRONLY | O_APPEND)));
  E(close(open("d/old", O_PATH)));
  E(open("d/old", O_CREAT | O_EXCL | O_RDWR, 0600));
  E(close(creat("d/old", 0600)));
  E(stat("d/old", &s));
  E(access("d/old", R_OK));
  E(truncate("d/old", 5));
  E(chmod("d/old", 0600));
  E(chown("d/old", getuid(), -1));
  struct timespec both[2] = {{1, 2}, {3, 4}}, first[2] = {{1, 2}, {0, UTIME_OMIT}}, second[2] = {{0, UTIME_OMIT}, {3, 4}};
  E(utimensat(AT_FDCWD, "d/old", both, 0));
  E(utimensat(AT_FDCWD, "d/old", first, 0));
  E(utimensat(AT_FDCWD, "d/old", second, 0));
  E(utimensat(AT_FDCWD, "d/old", 0, 0));
  E(link("d/old", "d/other"));
  E(link("d/old", "outside"));
  E(link("outside", "d/in"));
  E(unlink("d/in"));
  E(symlink("old", "d/link"));
  E(readlink("d/link", c, 100));
  E(close(open("d/link", O_RDONLY)));
  E(lchown("d/link", getuid(), -1));
  E(setxattr("d/old", "user.a", "b", 1, 0));
  E(removexattr("d/old", "user.a"));
  E(mknod("d/fifo", S_IFIFO | 0600, 0));
  E(fd = open("d/fifo", O_RDWR));
  E(write(fd, "x", 1));
  E(read(fd, c, 1));
  E(close(fd));
  int s2 = socket(AF_UNIX, SOCK_STREAM, 0);
  struct sockaddr_un name = {AF_UNIX, "d/socket"};
  E(bind(s2, (void *)&name, sizeof name));
  close(s2);
  E(unlink("d/socket"));
  E(unlink("d/fifo"));
  E(unlink("d/link"));
  E(unlink("d/missing"));
  T(fd = open("d/other", O_RDWR));
  told();
  T(unlink("d/other"));
  told();
  E(write(fd, "x", 1));
  E(close(fd));
  int other = open("outside", O_RDWR), here = open("d/old", O_RDWR);
  told();
  E(sendfile(here, other, 0, 3));
  E(sendfile(other, here, 0, 3));
  E(copy_file_range(here, 0, other, 0, 2, 0));
  char *map = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, here, 0);
  map[0] = 'x';
  E(msync(map, 4096, MS_SYNC));
  E(munmap(map, 4096));
  close(here), close(other);
  told();
  E(fd = open("d", O_TMPFILE | O_RDWR, 0600));
  E(write(fd, "x", 1));
  sprintf(c, "/proc/self/fd/%d", fd);
  E(linkat(AT_FDCWD, c, AT_FDCWD, "d/tmp", AT_SYMLINK_FOLLOW));
  E(close(fd));
}

static void directories(void) {
  char c[1000];
  int fd;
  E(mkdir("d/sub", 0777));
  E(fd = open("d/sub", O_RDONLY));
  E(S(getdents64, fd, c, 1000));
  E(S(getdents64, fd, c, 1000));
  E(fchmod(fd, 0700));
  E(close(fd));
  E(fd = open("d", O_RDONLY));
  E(close(fd));
  E(chmod("d", 0755));
  E(chdir("d/sub"));
  E(chdir("../.."));
  int sub;
  T(sub = inotify_add_watch(in, "d/sub", IN_ALL_EVENTS));
  E(mkdir("d/sub/sub", 0777));
  E(close(open("d/sub/file", O_CREAT | O_WRONLY, 0600)));
  E(chmod("d/sub", 0777));
  E(rename("d/sub", "d/moved"));
  E(unlink("d/moved/file"));
  E(rmdir("d/moved"));
  E(rmdir("d/moved/sub"));
  E(rmdir("d/moved"));
  E(inotify_rm_watch(in, sub));
}

static void names_change(void) {
  mkdir("e", 0777);
  int e = inotify_add_watch(in, "e", IN_ALL_EVENTS);
  put("d/a", "1");
  put("d/b", "2");
  told();
  int a = inotify_add_watch(in, "d/a", IN_ALL_EVENTS), b = inotify_add_watch(in, "d/b", IN_ALL_EVENTS);
  printf("     %d %d %d\n", e, a, b);
  E(rename("d/a", "d/c"));
  E(rename("d/c", "e/a"));
  E(rename("e/a", "out"));
  E(rename("out", "d/a"));
  E(rename("d/a", "d/a"));
  E(renameat2(AT_FDCWD, "d/a", AT_FDCWD, "d/b", RENAME_EXCHANGE));
  E(renameat2(AT_FDCWD, "d/a", AT_FDCWD, "d/b", RENAME_NOREPLACE));
  E(rename("d/a", "d/b"));
  E(chmod("d/b", 0600));
  int fd;
  E(fd = open("d/b", O_RDWR));
  E(unlink("d/b"));
  E(write(fd, "x", 1));
  E(close(fd));
  put("d/x", "1");
  put("d/y", "1");
  told();
  int x = inotify_add_watch(in, "d/x", IN_ALL_EVENTS);
  E(fd = open("d/x", O_RDONLY));
  E(rename("d/y", "d/x"));
  E(close(fd));
  T(inotify_add_watch(in, "d/x", IN_ALL_EVENTS));
  E(link("d/x", "d/z"));
  E(unlink("d/x"));
  E(chmod("d/z", 0600));
  E(unlink("d/z"));
  mkdir("d/full", 0777), mkdir("d/empty", 0777);
  told();
  E(rename("d/full", "d/empty"));
  E(rmdir("d/empty"));
}

static void watches(void) {
  int other = inotify_init1(IN_NONBLOCK), w;
  char c[64];
  put("f", "text");
  T(inotify_init1(1));
  T(inotify_add_watch(in, "f", 0));
  T(inotify_add_watch(in, "f", 0x10000000 | 1));
  T(inotify_add_watch(in, "f", IN_ACCESS | IN_MASK_ADD | IN_MASK_CREATE));
  T(inotify_add_watch(99, "f", IN_ACCESS));
  T(inotify_add_watch(0, "f", IN_ACCESS));
  T(inotify_add_watch(in, "missing", IN_ACCESS));
  T(inotify_add_watch(in, "f", IN_ACCESS | IN_ONLYDIR));
  T(inotify_add_watch(in, NOWHERE, IN_ACCESS));
  symlink("f", "l");
  T(w = inotify_add_watch(in, "f", IN_OPEN));
  T(inotify_add_watch(in, "l", IN_OPEN) == w);
  T(inotify_add_watch(in, "l", IN_OPEN | IN_DONT_FOLLOW) == w);
  T(inotify_add_watch(in, "f", IN_OPEN | IN_MASK_CREATE));
  T(inotify_add_watch(in, "f", IN_CLOSE | IN_MASK_ADD) == w);
  E(close(open("f", O_RDONLY)));
  T(inotify_add_watch(in, "f", IN_CLOSE) == w);
  E(close(open("f", O_RDONLY)));
  E(inotify_rm_watch(in, w));
  E(inotify_rm_watch(in, w));
  T(inotify_rm_watch(in, -1));
  T(inotify_rm_watch(0, 1));
  T(inotify_add_watch(in, "f", IN_OPEN | IN_ONESHOT) > w);
  E(close(open("f", O_RDONLY)));
  E(close(open("f", O_RDONLY)));
  T(inotify_add_watch(other, "f", IN_OPEN | IN_ACCESS));
  close(open("f", O_RDONLY));
  close(open("f", O_RDONLY)); /* the same as the last one: merged */
  T(read(other, c, 15));
  T(read(other, c, 64));
  T(read(other, c, 64));
  struct pollfd p = {other, POLLIN | POLLOUT, 0};
  T(poll(&p, 1, 0));
  close(open("f", O_RDONLY));
  T(poll(&p, 1, 0));
  printf("     %x\n", p.revents);
  T(write(other, c, 1));
  T(lseek(other, 0, SEEK_SET));
  T(pread(other, c, 64, 0));
  sprintf(c, "/proc/self/fd/%d", other);
  char target[100] = "";
  T(readlink(c, target, 99));
  printf("     %s\n", target);
  T(unlink("l"));
  told();
  T(inotify_add_watch(in, "e", IN_ALL_EVENTS | IN_EXCL_UNLINK) > 0);
  put("e/f", "x");
  told();
  int fd = open("e/f", O_RDWR);
  unlink("e/f");
  told();
  E(write(fd, "x", 1));
  E(close(fd));
  close(other);
  int q = inotify_init1(IN_NONBLOCK);
  T(inotify_add_watch(q, "e", IN_CREATE | IN_DELETE) > 0);
  for (int i = 0; i < 9000; i++) {
    char n[20];
    sprintf(n, "e/%d", i);
    mknod(n, S_IFREG | 0600, 0);
    unlink(n);
  }
  int bytes = 0, count = 0, last = 0;
  static char all[2000000] __attribute__((aligned(8)));
  T(ioctl(q, FIONREAD, &bytes));
  T(bytes);
  T(bytes = read(q, all, sizeof all));
  for (char *at = all; at < all + bytes; at += sizeof(struct inotify_event) + ((struct inotify_event *)at)->len)
    count++, last = ((struct inotify_event *)at)->mask;
  printf("     %d %x\n", count, last);
}

static void waiting(void) {
  int q = inotify_init1(0), go[2];
  char c[64];
  pipe(go);
  inotify_add_watch(q, "f", IN_MODIFY | IN_CLOSE);
  if (!fork()) {
    usleep(5000);
    int fd = open("f", O_WRONLY);
    write(fd, "x", 1);
    read(go[0], c, 1); /* and does not close it before the parent has read that */
    _exit(0);
  }
  T(read(q, c, 64));
  write(go[1], "x", 1);
  T(read(q, c, 64));
  wait(0);
  close(q);
}

int main(void) {
  setvbuf(stdout, 0, _IONBF, 0);
  in = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
  files(), directories(), names_change(), watches(), waiting();
}

/* What changes the time of the last access, with each of the mount options about it. Needs a mount namespace. */
#include "check.h"
#include <sched.h>
#include <sys/mount.h>

static void nap(void) {
  struct timespec t = {0, 30000000};
  nanosleep(&t, 0);
}

static long long accessed(const char *path) {
  struct stat s;
  lstat(path, &s);
  return s.st_atim.tv_sec * 1000000000LL + s.st_atim.tv_nsec;
}

static int changed_long_ago(const char *path) {
  struct stat s;
  lstat(path, &s);
  return s.st_mtim.tv_sec == 900;
}

/* Give the file times of long ago. */
static void age(const char *path) {
  struct timespec times[2] = {{1000, 0}, {900, 0}};
  utimensat(AT_FDCWD, path, times, AT_SYMLINK_NOFOLLOW);
  nap();
}

#define SEEN(path, action)                                                     \
  do {                                                                         \
    long long before_ = accessed(path);                                        \
    action;                                                                    \
    printf("%4d %s: %s %s\n", __LINE__, #action, path,                         \
           accessed(path) == before_ ? "as before" : "accessed");              \
    nap();                                                                     \
  } while (0)

static void list(int flags) {
  char names[4096];
  int fd = open("directory", O_RDONLY | O_DIRECTORY | flags);
  while (syscall(SYS_getdents64, fd, names, sizeof names) > 0) {}
  close(fd);
}

static void look(void) {
  char text[16];
  put("file", "some text\n");
  mkdir("directory", 0755);
  put("directory/name", "");
  symlink("file", "link");
  age("file");
  int fd = open("file", O_RDWR), quiet = open("file", O_RDONLY | O_NOATIME), none[2];
  SEEN("file", read(quiet, text, 3));
  SEEN("file", read(fd, text, 3));
  SEEN("file", pread(fd, text, 3, 0));
  age("file");
  SEEN("file", pread(fd, text, 3, 100)); /* at the end */
  age("file");
  SEEN("file", fcntl(fd, F_SETFL, O_NOATIME));
  SEEN("file", pread(fd, text, 3, 0));
  SEEN("file", fcntl(fd, F_SETFL, 0));
  SEEN("file", write(fd, "x", 1));
  SEEN("file", pread(fd, text, 3, 0));
  SEEN("file", chmod("file", 0600));
  SEEN("file", pread(fd, text, 3, 0));
  age("file");
  pipe(none);
  SEEN("file", sendfile(none[1], fd, 0, 3));
  age("file");
  SEEN("file", close(open("file", O_RDONLY)));
  SEEN("file", munmap(mmap(0, 4096, PROT_READ, MAP_PRIVATE, quiet, 0), 4096));
  SEEN("file", munmap(mmap(0, 4096, PROT_READ, MAP_PRIVATE, fd, 0), 4096));
  SEEN("file", munmap(mmap(0, 4096, PROT_READ, MAP_PRIVATE, fd, 0), 4096));
  age("file");
  age("directory");
  SEEN("directory", access("directory/name", R_OK));
  SEEN("directory", list(O_NOATIME));
  SEEN("directory", list(0));
  SEEN("directory", list(0));
  SEEN("directory", unlink("directory/name"));
  SEEN("directory", list(0));
  age("link");
  SEEN("link", lstat("link", &(struct stat){0}));
  SEEN("link", readlink("link", text, sizeof text));
  age("link");
  SEEN("link", access("link", R_OK));
  SEEN("link", access("link", R_OK));
  close(fd), close(quiet);
  mkfifo("fifo", 0600);
  fd = open("fifo", O_RDWR | O_NONBLOCK);
  age("fifo");
  SEEN("fifo", write(fd, text, 5));
  T(changed_long_ago("fifo"));
  age("fifo");
  SEEN("fifo", read(fd, text, 2));
  SEEN("fifo", read(fd, text, 9));
  T(changed_long_ago("fifo"));
  age("fifo");
  SEEN("fifo", read(fd, text, 9)); /* nothing there */
  close(fd);
}

int main(void) {
  static const struct {
    const char *name;
    unsigned long flags;
  } ways[] = {{"usual", 0},          {"noatime", MS_NOATIME},       {"nodiratime", MS_NODIRATIME},
              {"strictatime", MS_STRICTATIME}, {"relatime", MS_RELATIME},
              {"strictatime, nodiratime", MS_STRICTATIME | MS_NODIRATIME}};
  setvbuf(stdout, 0, _IONBF, 0);
  T(unshare(CLONE_NEWNS));
  mount(0, "/", 0, MS_REC | MS_PRIVATE, 0);
  mkdir("here", 0700);
  for (int i = 0; i < (int)(sizeof ways / sizeof *ways); i++) {
    printf("%s\n", ways[i].name);
    T(mount("none", "here", "tmpfs", ways[i].flags, 0));
    T(chdir("here"));
    look();
    if (!ways[i].flags) {
      age("file");
      T(mount(0, ".", 0, MS_REMOUNT | MS_BIND | MS_RDONLY, 0));
      char c;
      int fd = open("file", O_RDONLY);
      SEEN("file", read(fd, &c, 1));
      close(fd);
    }
    T(chdir(".."));
    T(umount("here"));
  }
  rmdir("here");
  printf("on the file system of the working directory\n");
  look();
  unlink("file"), rmdir("directory"), unlink("link"), unlink("fifo");
  return 0;
}

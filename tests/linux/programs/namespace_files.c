/* What open namespaces say of themselves, and who gets where: ioctl_ns, setns, unshare. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>
static const char *err(int result) { return result < 0 ? strerrorname_np(errno) : "ok"; }
static void ask(const char *path) {
  int fd = open(path, O_RDONLY), other;
  unsigned uid = 7;
  struct stat here, there;
  printf("%s: type %#x", path, ioctl(fd, 0xb703));
  printf(", owner %s", err(ioctl(fd, 0xb704, &uid)));
  printf(" %u", uid);
  printf(", users %s", err(other = ioctl(fd, 0xb701)));
  if (other >= 0) {
    int own = open("/proc/self/ns/user", O_RDONLY);
    fstat(other, &there);
    fstat(own, &here);
    printf(" %d %#x", here.st_ino == there.st_ino, ioctl(other, 0xb703));
  }
  printf(", parent %s", err(ioctl(fd, 0xb702)));
  printf(", other %s", err(ioctl(fd, 0xb7ff)));
  printf(", write %s", err(write(fd, "x", 1)));
  printf(", read %s\n", err(read(fd, &uid, 1)));
}
int main(void) {
  const char *kinds[] = {"uts", "ipc", "user", "cgroup", "net", "mnt"};
  char path[64];
  for (int round = 0; round < 3; round++) {
    for (int at = 0; at < 6; at++) {
      sprintf(path, "/proc/self/ns/%s", kinds[at]);
      ask(path);
    }
    int before = open("/proc/self/ns/user", O_RDONLY), uts = open("/proc/self/ns/uts", O_RDONLY);
    printf("back into the same: %s\n", err(setns(before, 0)));
    printf("unshare: %s\n", err(unshare(CLONE_NEWUSER | (round ? CLONE_NEWUTS : 0))));
    printf("up: %s %s\n", err(setns(before, CLONE_NEWUSER)), err(setns(uts, CLONE_NEWUTS)));
    printf("%d %d\n", geteuid(), getegid());
  }
}

#include "check.h"
/* tmpfs and bind mounts, in a namespace of the program's own where there can be one. */
#include <sched.h>
#include <sys/mount.h>

static void mounted(const char *name) {
  char line[512];
  FILE *file = fopen("/proc/self/mounts", "r");
  int found = 0;
  while (fgets(line, sizeof line, file)) found += strstr(line, name) != 0;
  fclose(file);
  printf("     %d mounts of %s\n", found, name);
}

/* Mounts on what is in /proc, whose directories remember no names. */
static void over_processes(void) {
  T(mkdir("p", 0777));
  T(mount("none", "p", "proc", 0, 0));
  T(mount("p/sys", "p/sys", 0, MS_BIND, 0));
  T(mount("none", "p/sys", 0, MS_BIND | MS_REMOUNT | MS_RDONLY, 0));
  mounted("/p/sys proc ro,");
  T(access("p/sys/kernel/domainname", W_OK));
  T(access("p/sys/kernel/domainname", R_OK));
  T(mount("/dev/null", "p/meminfo", 0, MS_BIND, 0));
  show("p/meminfo");
  T(umount("p/meminfo"));
  T(umount("p/meminfo"));
  T(umount("p"));
  T(umount("p/sys"));
  T(umount("p/sys"));
  T(access("p/sys/kernel/domainname", W_OK));
  T(umount("p"));
  T(rmdir("p"));
}

int main(void) {
  setvbuf(stdout, 0, _IOFBF, 1 << 16);
  struct stat status;
  unshare(CLONE_NEWNS); /* inside, the machine's tree is one already */
  mount("", "/", 0, MS_REC | MS_PRIVATE, 0);
  T(mkdir("tree", 0755));
  put("tree/below", "below");
  T(mount("none", "tree", "tmpfs", 0, "mode=750"));
  T(stat("tree", &status));
  printf("     mode %o\n", status.st_mode);
  T(access("tree/below", F_OK));
  mounted("/tree tmpfs");
  put("tree/above", "above");
  show("tree/above");
  T(rename("tree/above", "outside"));
  T(rmdir("tree"));
  int fd = open("tree/above", O_RDONLY);
  T(umount("tree"));
  char *map = mmap(0, 4096, PROT_READ, MAP_SHARED, fd, 0);
  T(close(fd));
  T(umount("tree"));
  T(munmap(map, 4096));
  T(chdir("tree"));
  T(umount("../tree"));
  T(chdir(".."));
  T(mount("none", "tree", "tmpfs", MS_NOEXEC, 0));
  T(stat("tree", &status));
  printf("     mode %o\n", status.st_mode);
  T(access("tree/above", F_OK));
  put("tree/script", "#!/bin/true\n");
  T(chmod("tree/script", 0755));
  T(execl("tree/script", "script", (char *)0));
  mounted("/tree tmpfs");
  T(umount("tree"));
  T(umount("tree"));
  show("tree/above");
  T(mkdir("other", 0755));
  T(mount("tree", "other", 0, MS_BIND, 0));
  show("other/above");
  put("other/too", "too");
  T(unlink("other/above"));
  T(mount("none", "other", "tmpfs", 0, 0));
  T(access("other/too", F_OK));
  T(umount2("other", 99));
  T(umount2("other", MNT_DETACH));
  show("other/too");
  T(umount("other"));
  T(access("other/too", F_OK));
  show("tree/too");
  T(access("tree/above", F_OK));
  T(umount("tree"));
  T(umount("tree"));
  show("tree/below");
  T(umount("tree"));
  T(umount("nowhere"));
  T(mount("none", "nowhere", "tmpfs", 0, 0));
  T(mount("none", "tree/below", "tmpfs", 0, 0));
  T(mount("none", "tree", "nothing of the kind", 0, 0));
  T(mount("none", "tree", 0, 0, 0));
  T(mount("nowhere", "tree", 0, MS_BIND, 0));
  T(mount("tree/below", "tree", 0, MS_BIND, 0));
  over_processes();
  if (!geteuid()) {
    T(seteuid(65534));
    T(mount("none", "tree", "tmpfs", 0, 0));
    T(umount("tree"));
  }
}

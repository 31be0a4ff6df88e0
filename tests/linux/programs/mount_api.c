#include "check.h"
/* Mounting with fsopen and its kin: what is made, moved, copied and changed, and what is refused. For root. */
#include <sched.h>
#include <sys/mount.h>

#define FSOPEN(...) syscall(430, __VA_ARGS__)
#define FSCONFIG(...) syscall(431, __VA_ARGS__)
#define FSMOUNT(...) syscall(432, __VA_ARGS__)
#define MOVE_MOUNT(...) syscall(429, __VA_ARGS__)
#define OPEN_TREE(...) syscall(428, __VA_ARGS__)
#define SETATTR(...) syscall(442, __VA_ARGS__)

struct attributes {
  uint64_t set, clear, propagation, userns;
};

static void told(void) {
  char line[1024];
  FILE *file = fopen("/proc/self/mountinfo", "r");
  while (fgets(line, sizeof line, file)) {
    char *name = strstr(line, "/tree");
    if (!name) name = strstr(line, "/other");
    if (name) printf("     %s", name);
  }
  fclose(file);
}

int main(void) {
  setvbuf(stdout, 0, _IOFBF, 1 << 16);
  unshare(CLONE_NEWNS);
  mount("", "/", 0, MS_REC | MS_PRIVATE, 0);
  T(mkdir("tree", 0755));
  T(mkdir("other", 0755));
  T(FSOPEN("nothing of the kind", 0));
  T(FSOPEN("tmpfs", 2));
  T(FSOPEN(NOWHERE, 0));
  T(FSOPEN("tmpfs", 1));
  T(fcntl(3, F_GETFD));
  T(FSMOUNT(3, 0, 0));
  T(FSCONFIG(3, 1, "source", "here", 0));
  T(FSCONFIG(3, 1, "source", "there", 0));
  T(FSCONFIG(3, 1, "size", "64k", 0));
  T(FSCONFIG(3, 1, "mode", "700", 1));
  T(FSCONFIG(3, 1, 0, "700", 0));
  T(FSCONFIG(3, 0, "ro", "x", 0));
  T(FSCONFIG(3, 1, "mode", "700", 0));
  T(FSCONFIG(3, 99, 0, 0, 0));
  T(FSCONFIG(-1, 6, 0, 0, 0));
  T(FSCONFIG(0, 6, 0, 0, 0));
  T(FSCONFIG(99, 6, 0, 0, 0));
  T(FSCONFIG(3, 6, "x", 0, 0));
  T(FSCONFIG(3, 6, 0, 0, 0));
  T(FSCONFIG(3, 6, 0, 0, 0));
  T(FSCONFIG(3, 1, "mode", "711", 0));
  T(FSMOUNT(3, 2, 0));
  T(FSMOUNT(3, 0, 0x30));
  T(FSMOUNT(3, 0, 0x1000000));
  T(FSMOUNT(3, 1, 0x2 | 0x10)); /* MOUNT_ATTR_NOSUID, NOATIME */
  T(FSMOUNT(3, 1, 0));
  T(close(3));
  told();
  T(openat(4, "file", O_CREAT | O_WRONLY, 0600));
  T(close(3));
  T(MOVE_MOUNT(4, "", AT_FDCWD, "tree", 0));
  T(MOVE_MOUNT(4, "", AT_FDCWD, "tree/nothing", 4));
  T(MOVE_MOUNT(4, "", AT_FDCWD, "tree", 0x1000));
  T(MOVE_MOUNT(4, "", AT_FDCWD, "tree", 4));
  told();
  T(access("tree/file", F_OK));
  T(umount("tree"));
  T(MOVE_MOUNT(4, "", AT_FDCWD, "other", 4));
  T(access("tree/file", F_OK));
  T(close(4));
  told();
  T(MOVE_MOUNT(AT_FDCWD, "tree", AT_FDCWD, "other", 0));
  T(OPEN_TREE(AT_FDCWD, "other", 0x8000));
  T(OPEN_TREE(AT_FDCWD, "nothing", 1));
  T(OPEN_TREE(AT_FDCWD, "other", 1 | O_CLOEXEC));
  T(fcntl(3, F_GETFD));
  T(OPEN_TREE(AT_FDCWD, "other", 0));
  T(close(4));
  T(MOVE_MOUNT(3, "", AT_FDCWD, "tree", 4));
  told();
  T(close(3));

  struct attributes set = {.set = 1 | 8, .clear = 0};
  T(SETATTR(AT_FDCWD, "tree", 0, &set, sizeof set - 1));
  T(SETATTR(AT_FDCWD, "tree", 0, &set, 5000));
  T(SETATTR(AT_FDCWD, "tree", 0, NOWHERE, sizeof set));
  T(SETATTR(AT_FDCWD, "tree", 1 << 20, &set, sizeof set));
  T(SETATTR(AT_FDCWD, "tree/file", 0, &set, sizeof set));
  T(SETATTR(AT_FDCWD, "tree", 0, &set, sizeof set));
  T(access("tree/file", W_OK));
  T(access("other/file", W_OK));
  set = (struct attributes){.set = 0x20};
  T(SETATTR(AT_FDCWD, "tree", 0, &set, sizeof set));
  set = (struct attributes){.set = 0x20, .clear = 0x70 | 1};
  T(SETATTR(AT_FDCWD, "tree", 0, &set, sizeof set));
  set = (struct attributes){.propagation = MS_UNBINDABLE | MS_SHARED};
  T(SETATTR(AT_FDCWD, "tree", 0, &set, sizeof set));
  set = (struct attributes){.propagation = MS_UNBINDABLE};
  T(SETATTR(AT_FDCWD, "tree", 0x8000, &set, sizeof set));
  set = (struct attributes){0};
  T(SETATTR(AT_FDCWD, "nothing", 0, &set, sizeof set));
  told();
  T(OPEN_TREE(AT_FDCWD, "tree", 1));
  T(MOVE_MOUNT(AT_FDCWD, "tree", AT_FDCWD, "other", 0x200));
  T(umount("other"));
  T(umount("tree"));
  told();

  /* Mounts that never get a place go when they are closed. */
  T(OPEN_TREE(AT_FDCWD, "/", 1));
  T(OPEN_TREE(AT_FDCWD, "/", 1 | 0x8000));
  T(faccessat(3, "proc/self/exe", F_OK, 0));
  T(faccessat(4, "proc/self/exe", F_OK, 0));
  T(close(4));
  T(close(3));
  T(FSOPEN("tmpfs", 0));
  T(FSCONFIG(3, 6, 0, 0, 0));
  T(FSMOUNT(3, 0, 0));
  T(close(4));
  T(close(3));
  told();
}

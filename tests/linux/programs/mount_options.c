#include "check.h"
/* What the options of a mount forbid, moving, remounting, limits of tmpfs, and what /proc says of it all. For root. */
#include <sched.h>
#include <sys/mount.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <sys/xattr.h>

static void told(void) {
  char line[1024];
  FILE *file = fopen("/proc/self/mountinfo", "r");
  while (fgets(line, sizeof line, file)) {
    char *name = strstr(line, "/tree"), *rest = strstr(line, " - ");
    if (!name) name = strstr(line, "/other");
    if (!name) continue;
    int tag = strstr(line, "shared:") != 0;
    printf("     %.*s%s\n", (int)(rest - name), name, tag ? " shared" : rest);
  }
  fclose(file);
}

static void flags(const char *path) {
  struct statvfs s;
  T(statvfs(path, &s));
  printf("     %#lx %lu\n", s.f_flag & 0x3fff, s.f_namemax);
  if (s.f_blocks < 100) printf("     %lu blocks, %lu free, %lu inodes, %lu free\n", s.f_blocks, s.f_bfree, s.f_files, s.f_ffree);
}

static void forbidden(void) {
  T(open("tree/new", O_WRONLY | O_CREAT, 0600));
  T(open("tree/file", O_WRONLY));
  T(open("tree/file", O_RDONLY | O_TRUNC));
  T(open("tree/file", O_RDWR | O_CREAT | O_EXCL, 0600));
  T(open("tree", O_RDWR | O_TMPFILE, 0600));
  T(mkdir("tree/file", 0700));
  T(mkdir("tree/more", 0700));
  T(symlink("x", "tree/link"));
  T(link("tree/file", "tree/again"));
  T(unlink("tree/nothing"));
  T(rmdir("tree/nothing"));
  T(rename("tree/file", "tree/moved"));
  T(chmod("tree/file", 0600));
  T(chown("tree/file", 1, 1));
  T(truncate("tree/file", 1));
  T(truncate("tree", 1));
  T(utimensat(AT_FDCWD, "tree/file", 0, 0));
  T(setxattr("tree/file", "trusted.x", "y", 1, 0));
  T(access("tree/file", R_OK));
  T(access("tree/file", W_OK));
  T(access("tree", W_OK));
}

int main(void) {
  setvbuf(stdout, 0, _IOFBF, 1 << 16);
  unshare(CLONE_NEWNS); /* inside, the machine's tree is one already */
  mount("", "/", 0, MS_REC | MS_PRIVATE, 0);
  T(mkdir("tree", 0755));
  T(mkdir("other", 0755));

  T(mount("none", "tree", "tmpfs", MS_NODEV | MS_NOSUID, "size=64k,nr_inodes=6,mode=711,uid=3,gid=4"));
  told();
  flags("tree");
  static char block[40960];
  int fd = open("tree/file", O_RDWR | O_CREAT, 0600);
  T(write(fd, block, sizeof block));
  T(write(fd, block, sizeof block));
  T(write(fd, block, sizeof block));
  T(ftruncate(fd, 4096));
  flags("tree");
  T(mount("none", "tree", 0, MS_REMOUNT | MS_RDONLY, 0));
  T(mount("none", "tree", 0, MS_REMOUNT | MS_BIND | MS_RDONLY, 0));
  T(close(fd));
  T(mount("none", "tree", 0, MS_REMOUNT, "size=1k,nr_inodes=1"));
  T(mount("none", "tree", 0, MS_REMOUNT, "size=128k"));
  told();
  for (int i = 0; i < 6; i++) {
    char name[20];
    sprintf(name, "tree/n%d", i);
    T(close(open(name, O_CREAT | O_WRONLY, 0600)));
  }
  T(mount("none", "tree", 0, MS_REMOUNT | MS_RDONLY, 0));
  told();
  forbidden();
  T(mount("none", "tree", 0, MS_REMOUNT | MS_NOATIME, 0));
  flags("tree");
  T(umount("tree"));

  T(mount("none", "tree", "tmpfs", 0, 0));
  put("tree/file", "text");
  T(mount("tree", "other", 0, MS_BIND | MS_RDONLY, 0));
  T(access("other/file", W_OK));
  T(mount("none", "other", 0, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOEXEC, 0));
  T(access("other/file", W_OK));
  T(access("tree/file", W_OK));
  flags("other");
  told();
  T(umount("other"));
  T(mount("none", "tree", 0, MS_REMOUNT | MS_BIND | MS_RDONLY, 0));
  forbidden();
  T(mount("none", "tree", 0, MS_REMOUNT | MS_BIND | MS_NOSYMFOLLOW, 0));
  T(symlink("file", "tree/link"));
  T(access("tree/link", R_OK));
  T(readlink("tree/link", block, 9));
  T(open("tree/link", O_RDONLY | O_NOFOLLOW));

  T(mkdir("tree/a", 0755));
  T(mkdir("tree/b", 0755));
  T(mount("none", "tree/a", "tmpfs", 0, "mode=700"));
  T(mkdir("tree/a/c", 0755));
  T(mount("r", "tree/a/c", "ramfs", 0, 0));
  T(mount("tree/a", "tree/b", 0, MS_MOVE, 0));
  T(mount("tree/b", "tree/b/c", 0, MS_MOVE, 0));
  T(mount("tree/b/c", "tree/file", 0, MS_MOVE, 0));
  T(mount("tree/a", "tree/b", 0, MS_MOVE, 0));
  told();
  T(mount("tree", "other", 0, MS_BIND | MS_REC, 0));
  T(mount("tree/b", "tree/a", 0, MS_BIND, 0));
  told();
  T(umount("tree"));
  T(umount("other/b/c"));
  T(umount2("other", MNT_DETACH));
  T(umount("tree/a"));
  T(mount("", "tree/b", 0, MS_UNBINDABLE, 0));
  T(mount("tree/b", "other", 0, MS_BIND, 0));
  T(mount("tree", "other", 0, MS_BIND | MS_REC, 0));
  told();
  T(umount("other"));
  T(mount("", "tree/b", 0, MS_SHARED | MS_PRIVATE, 0));
  T(mount("", "tree/b", 0, MS_SHARED | MS_RDONLY, 0));
  T(mount("", "tree/b/c/d", 0, MS_SHARED, 0));
  T(mount("", "tree/a", 0, MS_SHARED, 0));
  T(mount("", "tree/b", 0, MS_SHARED, 0));
  told();
  T(mount("tree/b/c", "tree/a", 0, MS_MOVE, 0));
  T(umount2("tree/b/c", MNT_EXPIRE | MNT_DETACH));
  T(umount2("tree/b/c", MNT_EXPIRE));
  T(access("tree/b/c", F_OK));
  T(umount2("tree/b/c", MNT_EXPIRE));
  T(umount2("tree/b/c", MNT_EXPIRE));
  T(umount2("tree/b/c", MNT_EXPIRE));
  T(umount2("tree", MNT_DETACH));
  T(umount2("tree", MNT_DETACH));

  T(mount("none", "tree", "tmpfs", 0, "size=1x"));
  T(mount("none", "tree", "tmpfs", 0, "mode=9"));
  T(mount("none", "tree", "tmpfs", 0, "unknown=1"));
  T(mount(0, "tree", "tmpfs", 0, "nr_blocks=3"));
  told();
  T(umount("tree"));
  T(mount((char *)8, "tree", "tmpfs", 0, 0));
  T(mount("none", "tree", (char *)8, 0, 0));
  T(mount("none", "tree", "tmpfs", 0, (void *)8));
  memset(block, 'x', sizeof block);
  block[sizeof block - 1] = 0;
  T(mount("none", "tree", block, 0, 0));
  T(mount("none", block, "tmpfs", 0, 0));
  T(mount(0, "tree", 0, MS_BIND, 0));
  T(mount("", "tree", 0, MS_BIND, 0));
  T(mount("/", "tree", 0, MS_MOVE, 0));
  T(mount("none", "tree", 0, MS_REMOUNT, 0));
  T(umount("/proc/self/status"));
  T(mount("p", "tree", "proc", MS_NODEV, 0));
  T(access("tree/self/status", R_OK));
  T(access("tree/self/exe", X_OK));
  T(umount("tree"));
}

#include "check.h"

/* Following a link changes its access time, and device files have the times of the machine's start: not shown. */
static void tell(const char *path, int flags) {
  struct stat s;
  if (fstatat(AT_FDCWD, path, &s, flags)) {
    printf("     %s: %s\n", path, strerrorname_np(errno));
    return;
  }
  printf("     %s: mode %o uid %d gid %d rdev %lx", path, s.st_mode, s.st_uid, s.st_gid, (long)s.st_rdev);
  if (!S_ISDIR(s.st_mode)) printf(" nlink %ld size %ld", (long)s.st_nlink, (long)s.st_size);
  if (S_ISREG(s.st_mode)) printf(" atime %ld.%ld", s.st_atime, s.st_atim.tv_nsec);
  if (!S_ISCHR(s.st_mode)) printf(" mtime %ld.%ld", s.st_mtime, s.st_mtim.tv_nsec);
  printf("\n");
}

static const struct timespec fixed[2] = {{1000, 5}, {2000, 7}};

static void fix(const char *path) { utimensat(AT_FDCWD, path, fixed, AT_SYMLINK_NOFOLLOW); }

int main(void) {
  struct stat st;
  struct statx sx;
  umask(022);
  put("file", "some text");
  mkdir("d", 0755);
  symlink("file", "link");
  fix("file"), fix("d"), fix("link");
  tell("file", 0);
  tell("link", 0);
  tell("link", AT_SYMLINK_NOFOLLOW);
  tell("d", 0);
  tell("none", 0);
  tell("/dev/null", 0);
  tell("/dev/zero", AT_NO_AUTOMOUNT);
  T(stat("file", NOWHERE));
  T(stat(NOWHERE, &st));
  T(stat("", &st));
  T(fstatat(AT_FDCWD, "file", &st, 0x80));
  T(fstatat(99, "file", &st, 0));
  int fd = open("file", O_RDWR), d = open("d", O_RDONLY);
  T(fstatat(fd, "", &st, AT_EMPTY_PATH));
  T(fstatat(fd, "x", &st, 0));
  T(fstatat(d, "../file", &st, 0));
  T(fstatat(AT_FDCWD, "", &st, AT_EMPTY_PATH));
  T(fstat(99, &st));
  T(S(statx, AT_FDCWD, "file", 0, 0x7ff, &sx));
  printf("     %o %ld %d %ld.%d mask %x\n", sx.stx_mode, (long)sx.stx_size, sx.stx_nlink, (long)sx.stx_mtime.tv_sec,
         sx.stx_mtime.tv_nsec, sx.stx_mask & 0x7ff);
  T(S(statx, AT_FDCWD, "file", 0, 0x80000000, &sx));
  T(S(statx, AT_FDCWD, "file", 0x6000, 0x7ff, &sx));
  T(S(statx, AT_FDCWD, "file", 0x10, 0x7ff, &sx));
  T(S(statx, fd, "", AT_EMPTY_PATH, 0x7ff, &sx));
  T(S(statx, AT_FDCWD, "file", 0, 0x7ff, NOWHERE));
  T(access("file", F_OK));
  T(access("file", R_OK | W_OK));
  T(access("file", X_OK));
  T(access("d", X_OK));
  T(access("none", F_OK));
  T(access("file", 8));
  T(access("file/x", F_OK));
  T(S(faccessat2, AT_FDCWD, "link", 0, AT_SYMLINK_NOFOLLOW));
  T(S(faccessat2, AT_FDCWD, "link", 0, 0x20));
  T(S(faccessat2, fd, "", R_OK, AT_EMPTY_PATH));
  T(chmod("file", 04751));
  tell("file", 0);
  T(chmod("none", 0));
  T(chmod("link", 0640));
  tell("file", 0);
  T(fchmod(fd, 0600));
  T(fchmod(99, 0600));
  T(fchmodat(d, "../file", 0601, 0));
  tell("file", 0);
  T(S(fchmodat2, AT_FDCWD, "link", 0600, AT_SYMLINK_NOFOLLOW));
  T(S(fchmodat2, AT_FDCWD, "link", 0600, 0x40));
  T(chown("file", -1, -1));
  T(chown("file", getuid(), getgid()));
  T(lchown("link", -1, -1));
  T(chown("none", -1, -1));
  T(fchown(99, -1, -1));
  T(fchownat(fd, "", -1, -1, AT_EMPTY_PATH));
  T(fchownat(fd, "", -1, -1, 1));
  struct timespec t[2] = {{5, 0}, {6, UTIME_OMIT}};
  T(utimensat(AT_FDCWD, "file", t, 0));
  tell("file", 0);
  t[0].tv_nsec = UTIME_OMIT, t[1].tv_nsec = 9;
  T(utimensat(AT_FDCWD, "link", t, 0));
  tell("file", 0);
  struct timespec before[2] = {{-1, 999999999}, {-1, 999999998}}; /* -1 and -2 ns */
  T(utimensat(AT_FDCWD, "file", before, 0));
  tell("file", 0);
  t[1].tv_nsec = UTIME_OMIT;
  T(utimensat(AT_FDCWD, "none", t, 0));
  t[1].tv_nsec = -1;
  T(utimensat(AT_FDCWD, "file", t, 0));
  T(utimensat(AT_FDCWD, "none", t, 0));
  T(S(utimensat, fd, NULL, fixed, 0));
  T(S(utimensat, fd, NULL, fixed, AT_SYMLINK_NOFOLLOW));
  T(S(utimensat, AT_FDCWD, NULL, fixed, 0));
  T(S(utimensat, AT_FDCWD, "file", NOWHERE, 0));
  T(S(utimensat, AT_FDCWD, "file", fixed, 0x40));
  tell("file", 0);
  struct timeval v[2] = {{11, 12}, {13, 14}};
  T(utimes("file", v));
  tell("file", 0);
  v[1].tv_usec = 1000000;
  T(utimes("file", v));
  T(S(futimesat, d, "../file", NULL));
  long seconds[2] = {21, 22};
  T(S(utime, "file", seconds));
  tell("file", 0);
  fix("link");
  tell("link", AT_SYMLINK_NOFOLLOW);
  struct statfs fs;
  T(statfs("none", &fs));
  T(statfs(".", NOWHERE));
  T(statfs(".", &fs));
  printf("     namelen %ld, frsize equals bsize: %d\n", (long)fs.f_namelen, fs.f_frsize == fs.f_bsize);
  T(fstatfs(99, &fs));
  int p[2];
  pipe(p);
  T(fstatfs(p[0], &fs));
  printf("     type %lx bsize %ld\n", (long)fs.f_type, (long)fs.f_bsize);
  T(fstat(p[0], &st));
  printf("     %o size %ld nlink %ld blksize %ld\n", st.st_mode, (long)st.st_size, (long)st.st_nlink, (long)st.st_blksize);
  T(statfs("/proc", &fs));
  printf("     type %lx\n", (long)fs.f_type);
  put("born", "text"); /* when it was made is told, and stays */
  T(S(statx, AT_FDCWD, "born", 0, 0x800, &sx));
  struct statx later;
  struct timespec old[2] = {{1, 0}, {1, 0}};
  utimensat(AT_FDCWD, "born", old, 0);
  T(S(statx, AT_FDCWD, "born", 0, 0x800, &later));
  T(sx.stx_mask & later.stx_mask & 0x800);
  T(sx.stx_btime.tv_sec >= time(0) - 60 && sx.stx_btime.tv_sec <= time(0) + 1);
  T(sx.stx_btime.tv_sec == later.stx_btime.tv_sec && sx.stx_btime.tv_nsec == later.stx_btime.tv_nsec);
  unlink("born");
  return 0;
}

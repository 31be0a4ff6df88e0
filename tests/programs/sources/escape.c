/* Tries every way it knows to change files of the host: the directory argv[1] and what is in it. Prints what the calls
   returned, so that a run in which everything failed for another reason is told from one in which the overlay worked. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/time.h>
#include <sys/xattr.h>
#include <unistd.h>
#include <utime.h>

static char base[2048];
static char path_buffer[8][4096];
static int next_path;

static const char *at(const char *name) {
    char *path = path_buffer[next_path++ % 8];
    snprintf(path, 4096, "%s/%s", base, name);
    return path;
}

#define TRY(what) do { errno = 0; long result = (long)(what); \
    printf("%s -> %ld %s\n", #what, result < 0 ? -1 : result > 2 ? 3 : result, result < 0 ? strerror(errno) : ""); fflush(stdout); } while (0)

static long overwrite(int fd) {
    if (fd < 0) return -1;
    long result = write(fd, "OWNED", 5);
    ftruncate(fd, 3);
    fchmod(fd, 0777);
    fchown(fd, 1, 1);
    struct timespec times[2] = {{1, 0}, {1, 0}};
    futimens(fd, times);
    fsetxattr(fd, "user.owned", "1", 1, 0);
    fallocate(fd, 0, 0, 100000);
    fsync(fd);
    close(fd);
    return result;
}

static long map_and_write(const char *name) {
    int fd = open(at(name), O_RDWR);
    char *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (page == MAP_FAILED) return -1;
    memcpy(page, "MAPPED", 6);
    msync(page, 4096, MS_SYNC);
    munmap(page, 4096);
    close(fd);
    return 0;
}

static long reopened(const char *name) {
    char link[64];
    int fd = open(at(name), O_RDONLY);
    if (fd < 0) return -1;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    return overwrite(open(link, O_RDWR | O_TRUNC));
}

int main(int argc, char **argv) {
    struct timeval times[2] = {{5, 0}, {5, 0}};
    struct utimbuf old = {5, 5};
    char text[4096];
    snprintf(base, sizeof base, "%s", argv[1]);
    TRY(overwrite(open(at("plain"), O_WRONLY)));
    TRY(overwrite(open(at("plain"), O_RDWR | O_TRUNC)));
    TRY(overwrite(open(at("plain"), O_WRONLY | O_APPEND)));
    TRY(overwrite(open(at("sub/../plain2"), O_RDWR)));
    TRY(overwrite(open(at("to-plain3"), O_RDWR)));
    TRY(overwrite(open(at("absolute-link"), O_RDWR)));
    snprintf(text, sizeof text, "/proc/self/root%s/plain4", base);
    TRY(overwrite(open(text, O_RDWR)));
    snprintf(text, sizeof text, "/proc/self/cwd/../../../../../../../../..%s/plain5", base);
    TRY(overwrite(open(text, O_RDWR)));
    snprintf(text, sizeof text, "/../../..%s/plain5", base);
    TRY(overwrite(open(text, O_RDWR)));
    TRY(reopened("plain6"));
    TRY(map_and_write("plain7"));
    TRY(overwrite(open(at("created"), O_CREAT | O_EXCL | O_RDWR, 0666)));
    TRY(overwrite(open(base, O_TMPFILE | O_RDWR, 0600)));
    TRY(mkdir(at("made"), 0777));
    TRY(overwrite(open(at("made/inside"), O_CREAT | O_RDWR, 0666)));
    TRY(mknod(at("fifo"), S_IFIFO | 0666, 0));
    TRY(mknod(at("device"), S_IFBLK | 0666, makedev(7, 200)));
    TRY(symlink("/etc", at("link-out")));
    TRY(link(at("plain8"), at("hard")));
    TRY(overwrite(open(at("hard"), O_RDWR)));
    TRY(linkat(AT_FDCWD, at("to-plain3"), AT_FDCWD, at("hard2"), AT_SYMLINK_FOLLOW));
    TRY(overwrite(open(at("hard2"), O_RDWR)));
    TRY(rename(at("plain9"), at("renamed")));
    TRY(rename(at("sub"), at("sub-renamed")));
    TRY(overwrite(open(at("sub-renamed/inner"), O_RDWR)));
    TRY(syscall(SYS_renameat2, AT_FDCWD, at("a"), AT_FDCWD, at("b"), 2));
    TRY(unlink(at("c")));
    TRY(rmdir(at("empty")));
    TRY(unlinkat(AT_FDCWD, at("empty2"), AT_REMOVEDIR));
    TRY(truncate(at("d"), 1));
    TRY(chmod(at("d"), 0777));
    TRY(fchmodat(AT_FDCWD, at("e"), 0777, 0));
    TRY(chown(at("d"), 1, 1));
    TRY(lchown(at("to-plain3"), 1, 1));
    TRY(utimes(at("d"), times));
    TRY(utime(at("e"), &old));
    TRY(utimensat(AT_FDCWD, at("to-plain3"), NULL, AT_SYMLINK_NOFOLLOW));
    TRY(setxattr(at("e"), "user.owned", "1", 1, 0));
    TRY(chmod(base, 0700));
    TRY(chdir(base));
    TRY(overwrite(open("f", O_RDWR)));
    TRY(overwrite(open("./sub-renamed/../f", O_RDWR | O_TRUNC)));
    TRY(unlink("f"));
    int directory = open(base, O_RDONLY | O_DIRECTORY);
    TRY(overwrite(openat(directory, "g", O_RDWR)));
    TRY(mkdirat(directory, "made2", 0777));
    TRY(symlinkat("x", directory, "link2"));
    TRY(unlinkat(directory, "g", 0));
    TRY(futimesat(directory, "h", times));
    TRY(fchmod(directory, 0711));
    TRY(fchdir(directory));
    TRY(copy_file_range(open("h", O_RDONLY), NULL, open("i", O_RDWR), NULL, 4, 0));
    TRY(chroot(base));
    TRY(overwrite(open("/i", O_RDWR)));
    TRY(overwrite(open("/../../etc-not-there", O_CREAT | O_RDWR, 0666)));
    TRY(syscall(SYS_open_by_handle_at, directory, text, O_RDWR));
    TRY(syscall(SYS_mount, "none", base, "tmpfs", 0, NULL));
    TRY(syscall(SYS_pivot_root, base, base));
    TRY(syscall(SYS_setxattr, "/i", "user.x", "1", 1, 0));
    TRY(syscall(SYS_io_uring_setup, 1, text));
    puts("done");
    return 0;
}

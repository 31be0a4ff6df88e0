/* Files: written, read at places, renamed, linked, listed, removed. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

int main(void) {
    char buffer[10000];
    struct stat status;
    int fd = open("one", O_RDWR | O_CREAT | O_EXCL, 0640), entries = 0;
    for (int i = 0; i < 5; i++) { memset(buffer, 'a' + i, sizeof buffer); write(fd, buffer, sizeof buffer); }
    struct iovec parts[2] = {{buffer, 5000}, {buffer + 6000, 100}};
    preadv(fd, parts, 2, 9000);
    printf("%c %c %ld\n", buffer[0], buffer[1001], (long)lseek(fd, -10, SEEK_END));
    ftruncate(fd, 12345);
    fstat(fd, &status);
    printf("%ld %o\n", (long)status.st_size, status.st_mode);
    mkdir("directory", 0755);
    rename("one", "directory/two");
    link("directory/two", "three");
    symlink("three", "four");
    printf("%d %d\n", open("one", O_RDONLY), errno);
    printf("%zd\n", readlink("four", buffer, sizeof buffer));
    DIR *here = opendir(".");
    while (readdir(here)) entries++;
    closedir(here);
    printf("%d entries, rmdir %d\n", entries, rmdir("directory"));
    unlink("directory/two"), unlink("three"), unlink("four"), rmdir("directory");
    FILE *stream = tmpfile();
    fprintf(stream, "%s %d\n", "text", 42);
    rewind(stream);
    printf("%d\n", fscanf(stream, "%s", buffer));
    close(fd);
    return 0;
}

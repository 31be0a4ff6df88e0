/* The terminal ioctls that would act on the host's session: argv[1] names the descriptor's file. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

int main(int argc, char **argv) {
    char character = 'x';
    int zero = 0, fd = open(argv[1], O_RDWR);
    struct winsize size;
    if (fd < 0) fd = 0;
    int refused = ioctl(fd, TIOCSTI, &character) == -1;
    refused = refused * 10 + (ioctl(fd, TIOCLINUX, &zero) == -1);
    refused = refused * 10 + (ioctl(fd, TIOCCONS, 0) == -1);
    printf("refused %d isatty %d winsize %d\n", refused, isatty(fd), ioctl(fd, TIOCGWINSZ, &size));
    return 0;
}

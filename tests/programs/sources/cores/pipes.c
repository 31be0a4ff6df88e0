/* Pipes, poll, eventfd-like ends, and what is said when the other end is gone. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

int main(void) {
    int ends[2];
    char buffer[70000];
    memset(buffer, 'p', sizeof buffer);
    pipe2(ends, O_NONBLOCK);
    printf("%zd %zd\n", write(ends[1], buffer, 5000), write(ends[1], buffer, sizeof buffer));
    struct pollfd wanted[2] = {{ends[0], POLLIN}, {ends[1], POLLOUT}};
    printf("%d %d %d\n", poll(wanted, 2, 0), wanted[0].revents, wanted[1].revents);
    ssize_t all = 0, part;
    while ((part = read(ends[0], buffer, 9000)) > 0) all += part;
    printf("%zd %d\n", all, errno == EAGAIN);
    close(ends[0]);
    signal(SIGPIPE, SIG_IGN);
    printf("%zd %d\n", write(ends[1], buffer, 1), errno == EPIPE);
    printf("%d\n", dup2(ends[1], 77));
    return 0;
}

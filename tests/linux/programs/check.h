#define _GNU_SOURCE
#include "asleep.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef SYS_fchmodat2
#define SYS_fchmodat2 452
#endif
#ifndef FIGETBSZ
#define FIGETBSZ 2
#endif

#define NOWHERE ((void *)8)
#define KERNEL ((void *)0xffff800000000000UL)

/* Make a call, and print it with its result or the name of its error. */
#define T(call)                                                                \
  do {                                                                         \
    errno = 0;                                                                 \
    long result_ = (long)(call);                                               \
    printf("%4d %s = ", __LINE__, #call);                                      \
    if (result_ == -1)                                                         \
      printf("-1 %s\n", strerrorname_np(errno));                               \
    else                                                                       \
      printf("%ld\n", result_);                                                \
  } while (0)

#define S(...) syscall(SYS_##__VA_ARGS__)

/* A child that sends us a signal when we sleep, and not before, however slow the machine is. */
static inline pid_t signal_asleep(int number) {
  pid_t parent = getpid(), child;
  fflush(stdout);
  if ((child = fork())) return child;
  asleep(parent);
  _exit(kill(parent, number));
}

static inline void put(const char *path, const char *text) {
  int fd = open(path, O_CREAT | O_TRUNC | O_WRONLY, 0644);
  if (write(fd, text, strlen(text)) < 0) perror(path);
  close(fd);
}

static inline void show(const char *path) {
  char text[256];
  int fd = open(path, O_RDONLY);
  ssize_t n = read(fd, text, sizeof text - 1);
  close(fd);
  printf("     %s has %zd bytes: %.*s\n", path, n, (int)(n < 0 ? 0 : n), text);
}

/* Two readable and writable pages, then one that is not there. */
static inline char *edge(void) {
  char *area = mmap(0, 3 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  munmap(area + 2 * 4096, 4096);
  return area + 2 * 4096;
}

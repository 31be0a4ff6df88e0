/* /proc/self/mountinfo tells who polls it of each change of the mounts, once. Needs a mount namespace. */
#include "check.h"
#include <sched.h>
#include <sys/mount.h>

int main(void) {
  setvbuf(stdout, 0, _IONBF, 0);
  T(unshare(CLONE_NEWNS));
  mount(0, "/", 0, MS_REC | MS_PRIVATE, 0);
  mkdir("here", 0700);
  struct pollfd p = {open("/proc/self/mountinfo", O_RDONLY), POLLPRI | POLLIN, 0};
  T(poll(&p, 1, 0));
  printf("     %x\n", p.revents);
  mount("none", "here", "tmpfs", 0, 0);
  for (int i = 0; i < 2; i++) {
    T(poll(&p, 1, 0));
    printf("     %x\n", p.revents);
  }
  mount(0, "here", 0, MS_REMOUNT | MS_BIND | MS_RDONLY, 0);
  T(poll(&p, 1, 0));
  printf("     %x\n", p.revents);
  if (!fork()) {
    usleep(200000);
    umount("here");
    _exit(0);
  }
  p.events = POLLPRI;
  T(poll(&p, 1, -1));
  printf("     %x\n", p.revents);
  wait(0);
  T(poll(&p, 1, 50));
  int list = epoll_create1(0);
  struct epoll_event event = {EPOLLPRI, {0}};
  T(epoll_ctl(list, EPOLL_CTL_ADD, p.fd, &event));
  T(epoll_wait(list, &event, 1, 50));
  mount("none", "here", "tmpfs", 0, 0);
  T(epoll_wait(list, &event, 1, -1));
  printf("     %x\n", event.events);
  T(epoll_wait(list, &event, 1, 50));
  umount("here");
  rmdir("here");
  return 0;
}

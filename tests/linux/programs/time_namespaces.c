/* Clocks, sleeps and timers in a time namespace, and what timens_offsets takes. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
static const char *err(long result) { return result < 0 ? strerrorname_np(errno) : "ok"; }
static const int clocks[] = {CLOCK_MONOTONIC, CLOCK_MONOTONIC_RAW, CLOCK_BOOTTIME, CLOCK_REALTIME};
static long long now(int clock) {
  struct timespec time;
  syscall(SYS_clock_gettime, clock, &time);
  return time.tv_sec;
}
static void set(const char *text) {
  int fd = open("/proc/self/timens_offsets", O_WRONLY);
  printf("%s: %s\n", text, err(write(fd, text, strlen(text))));
  close(fd);
}
int main(void) {
  long long before[4];
  struct timespec soon;
  struct itimerspec when = {0};
  struct sysinfo info;
  set("1 1 1");
  printf("unshare %s\n", err(unshare(CLONE_NEWTIME)));
  set("monotonic 1"), set("2 1 1"), set("1 1 1000000000"), set("1 9223372036 0"), set("1 -9223372036 0"), set("1 x 1");
  set("1 10 0\na"), set("1 10 0\n7 20 0\n1 30 0"), set("7 50000 6\n1 40000 4\n");
  for (int at = 0; at < 4; at++) before[at] = now(clocks[at]);
  for (int at = 0; at < 4; at++) printf("clock %d unchanged %d\n", clocks[at], now(clocks[at]) - before[at] < 100);
  fflush(0);
  if (!fork()) {
    for (int at = 0; at < 4; at++) printf("clock %d ahead %lld\n", clocks[at], (now(clocks[at]) - before[at]) / 1000);
    sysinfo(&info);
    printf("up %d\n", (int)(info.uptime - before[2]) / 1000);
    clock_gettime(CLOCK_MONOTONIC, &soon);
    soon.tv_nsec += 1000000, soon.tv_sec += soon.tv_nsec / 1000000000, soon.tv_nsec %= 1000000000;
    printf("sleep %s\n", err(-clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &soon, 0)));
    int timer = timerfd_create(CLOCK_MONOTONIC, 0);
    long long count = 0;
    when.it_value = soon;
    printf("timer %s", err(timerfd_settime(timer, TFD_TIMER_ABSTIME, &when, 0)));
    printf(" %s", err(read(timer, &count, 8)));
    printf(" %lld\n", count);
    set("1 1 1");
    fflush(0);
    _exit(0);
  }
  wait(0);
  set("1 1 1");
}

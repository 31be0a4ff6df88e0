/* Which pages of a buffer does a call touch? mincore tells, of anonymous memory, what is in the page tables. */
#include "check.h"

static char *fresh(void) {
  return mmap(0, 8 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

static void touched(const char *what, char *area, long result) {
  unsigned char pages[8];
  mincore(area, 8 * 4096, pages);
  printf("%-30s %6ld ", what, result);
  for (int i = 0; i < 8; i++) putchar(pages[i] & 1 ? 'x' : '.');
  putchar('\n');
  munmap(area, 8 * 4096);
}

#define P(what, call) do { char *a = fresh(); long r = (call); touched(what, a, r < 0 ? -errno : r); } while (0)

int main(void) {
  static char text[20000];
  struct stat st;
  int p[2], fd = open("file", O_CREAT | O_RDWR, 0600), null = open("/dev/null", O_RDWR), zero = open("/dev/zero", O_RDWR);
  int dir = open("/etc", O_RDONLY), proc = open("/proc/self/comm", O_RDONLY);
  write(fd, text, 5000);
  pipe2(p, O_NONBLOCK);
  lseek(fd, 0, SEEK_SET);
  P("short file", read(fd, a, 8 * 4096));
  P("at end of file", read(fd, a, 8 * 4096));
  P("pread in the middle", pread(fd, a + 4000, 8 * 4096 - 4000, 4900));
  P("pread past the end", pread(fd, a, 4096, 1 << 20));
  P("empty pipe", read(p[0], a, 8 * 4096));
  write(p[1], text, 4097);
  P("pipe with 4097 bytes", read(p[0], a, 8 * 4096));
  P("/dev/null", read(null, a, 8 * 4096));
  P("/dev/zero", read(zero, a, 3 * 4096));
  P("write only", read(p[1], a, 4096));
  P("directory", read(dir, a, 4096));
  P("proc file", read(proc, a, 8 * 4096));
  P("stat", fstat(fd, (void *)(a + 4096)));
  P("stat of nothing", stat("none", (void *)a));
  P("readlink", readlink("/proc/self", a, 8 * 4096) > 0);
  P("write to null", write(null, a, 3 * 4096));
  P("write to file", write(fd, a + 100, 4096));
  struct iovec v[2];
  P("readv", (v[0] = (struct iovec){a, 10}, v[1] = (struct iovec){a + 4 * 4096, 4096 * 4}, lseek(fd, 0, 0), readv(fd, v, 2)));
  P("getcwd", S(getcwd, a, 8 * 4096) > 0);
  P("getdents of few", (mkdir("d", 0700), S(getdents64, open("d", O_RDONLY), a, 8 * 4096)));
  return 0;
}

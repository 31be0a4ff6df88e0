#include "check.h"
/* Guard pages, locked memory and its limit, what a read-only /dev/zero allows, remap_file_pages, pagemap. */
#include <setjmp.h>

#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#define MADV_GUARD_REMOVE 103
#endif
#define PAGE 4096
#define RW (PROT_READ | PROT_WRITE)

static sigjmp_buf back;
static void caught(int number, siginfo_t *info, void *context) {
  (void)context;
  siglongjmp(back, number << 8 | info->si_code);
}

/* Write to the page: 0, or signal and si_code. */
static int touch(volatile char *at) {
  int how = sigsetjmp(back, 1);
  if (!how) *at = 1;
  return how;
}

static void look(const char *at, int pages) {
  uint64_t words[16] = {0};
  int fd = open("/proc/self/pagemap", O_RDONLY);
  printf("     pagemap %zd:", pread(fd, words, 8 * pages, (uintptr_t)at / PAGE * 8));
  for (int i = 0; i < pages; i++) printf(" %x", (unsigned)(words[i] >> 56));
  puts("");
  close(fd);
}

static char *area(int pages, int flags) { return mmap(0, pages * PAGE, RW, MAP_ANONYMOUS | flags, -1, 0); }

static void guards(void) {
  char *p = area(8, MAP_PRIVATE), *s = area(4, MAP_SHARED);
  memset(p, 7, 8 * PAGE);
  T(madvise(p + 2 * PAGE, 2 * PAGE, MADV_GUARD_INSTALL));
  T(touch(p + PAGE));
  T(touch(p + 2 * PAGE));
  T(touch(p + 4 * PAGE));
  look(p, 8);
  T(read(open("/dev/zero", O_RDONLY), p + 2 * PAGE, 1));
  T(madvise(p, 8 * PAGE, MADV_POPULATE_WRITE));
  T(madvise(p, 8 * PAGE, MADV_DONTNEED));
  T(touch(p + 3 * PAGE));
  T(mlock(p, 8 * PAGE));
  T(madvise(p + 5 * PAGE, PAGE, MADV_GUARD_INSTALL));
  T(munlock(p, 8 * PAGE));
  fflush(stdout);
  if (!fork()) {
    T(touch(p + 3 * PAGE));
    T(madvise(p + 3 * PAGE, PAGE, MADV_GUARD_REMOVE));
    T(touch(p + 3 * PAGE));
    fflush(stdout);
    _exit(0);
  }
  wait(0);
  T(touch(p + 3 * PAGE));
  char *q = mremap(p, 8 * PAGE, 8 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, area(8, MAP_PRIVATE));
  T(touch(q + 2 * PAGE));
  T(madvise(q, 8 * PAGE, MADV_GUARD_REMOVE));
  T(touch(q + 2 * PAGE) + q[2 * PAGE]);
  T(madvise(s + PAGE, PAGE, MADV_GUARD_INSTALL));
  T(touch(s + PAGE));
  T(munmap(s + PAGE, PAGE));
  T(mmap(s + PAGE, PAGE, RW, MAP_SHARED | MAP_FIXED | MAP_ANONYMOUS, -1, 0) == s + PAGE);
  T(touch(s + PAGE));
  T(madvise(s + 100, PAGE, MADV_GUARD_INSTALL));
  T(munmap(s + 3 * PAGE, PAGE));
  T(madvise(s, 4 * PAGE, MADV_GUARD_INSTALL));
  T(touch(s));
  char *big = area(64, MAP_PRIVATE); /* a walk through new memory, with a guard in its way */
  T(madvise(big + 40 * PAGE, PAGE, MADV_GUARD_INSTALL));
  for (int i = 0; i < 40; i++) big[i * PAGE] = 1;
  T(touch(big + 40 * PAGE));
  T(touch(big + 41 * PAGE));
}

static long locked_kb(const char *at) {
  char line[256], want[32];
  FILE *file = fopen("/proc/self/smaps", "r");
  int here = 0;
  long kb = -1;
  snprintf(want, sizeof want, "%lx-", (unsigned long)at);
  while (kb < 0 && fgets(line, sizeof line, file)) {
    if (strchr(line, '-')) here = !strncmp(line, want, strlen(want));
    if (here) sscanf(line, "Locked: %ld kB", &kb);
  }
  fclose(file);
  return kb;
}

static void locks(void) {
  char *p = area(8, MAP_PRIVATE);
  struct rlimit two = {2 * PAGE, 2 * PAGE}, none = {0, 0};
  T(mmap(p, PAGE, PROT_NONE, MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == p);
  T(mlock(p + PAGE, 4 * PAGE));
  T(locked_kb(p + PAGE));
  T(munlock(p + PAGE, 4 * PAGE));
  fflush(stdout);
  if (!fork()) {
    T(setrlimit(RLIMIT_MEMLOCK, &two));
    if (!geteuid()) T(mlock(p + PAGE, 4 * PAGE) + munlock(p + PAGE, 4 * PAGE));
    if (!geteuid()) T(seteuid(65534));
    else T(mlock(p + PAGE, 0) + munlock(p + PAGE, 0) + seteuid(geteuid()));
    T(mlock(p + PAGE, 3 * PAGE));
    T(mlock(p + PAGE, 2 * PAGE));
    T(mlock(p + 4 * PAGE, PAGE));
    T(mlockall(MCL_CURRENT));
    T(munlock(p + PAGE, 2 * PAGE));
    T(setrlimit(RLIMIT_MEMLOCK, &none));
    T(mlock(p + PAGE, PAGE));
    T(mmap(0, PAGE, RW, MAP_LOCKED | MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED);
    fflush(stdout);
    _exit(0);
  }
  wait(0);
  T(mlock(p + PAGE, 2 * PAGE));
  struct rlimit small = {1 << 20, 1 << 20};
  fflush(stdout);
  if (!fork()) { /* a limit that the child gives itself is the child's, and at once */
    T(setrlimit(RLIMIT_AS, &small));
    T(area(512, MAP_PRIVATE) == MAP_FAILED);
    fflush(stdout);
    _exit(0);
  }
  wait(0);
  T(area(512, MAP_PRIVATE) == MAP_FAILED);
}

static void zero(void) {
  int fd = open("/dev/zero", O_RDONLY);
  char *p = mmap(0, PAGE, PROT_READ, MAP_SHARED, fd, 0);
  T(mprotect(p, PAGE, RW));
  T(mmap(0, PAGE, RW, MAP_SHARED, fd, 0) == MAP_FAILED);
  p = mmap(0, PAGE, RW, MAP_PRIVATE, fd, 0);
  T(touch(p));
  p = mmap(0, PAGE, RW, MAP_SHARED, open("/dev/zero", O_WRONLY), 0);
  T(p == MAP_FAILED);
}

static void order(char *p, int count) {
  for (int i = 0; i < count; i++) putchar(p[i * PAGE]);
  puts("");
}

static void pages(int fd) {
  char *p = mmap(0, 4 * PAGE, RW, MAP_SHARED, fd, 0);
  for (int i = 0; i < 4; i++) p[i * PAGE] = 'a' + i;
  T(remap_file_pages(p, PAGE, 0, 3, 0));
  T(remap_file_pages(p + 2 * PAGE, 2 * PAGE, 0, 0, MAP_NONBLOCK));
  order(p, 4);
  T(remap_file_pages(p, PAGE, PROT_READ, 1, 0));
  T(remap_file_pages(p + 1, PAGE - 1, 0, 1, 0));
  T(munmap(p + 3 * PAGE, PAGE));
  T(remap_file_pages(p, 4 * PAGE, 0, 1, 0));
  T(remap_file_pages(p, 3 * PAGE, 0, 0, 0));
  T(remap_file_pages(area(1, MAP_PRIVATE), PAGE, 0, 0, 0));
  T(remap_file_pages(p, PAGE, 0, -1L, 0));
  order(p, 3);
}

int main(void) {
  setvbuf(stdout, 0, _IOFBF, 1 << 16);
  struct sigaction action = {.sa_sigaction = caught, .sa_flags = SA_SIGINFO};
  sigaction(SIGSEGV, &action, 0);
  sigaction(SIGBUS, &action, 0);
  guards();
  locks();
  zero();
  int fd = open("file", O_RDWR | O_CREAT, 0600);
  T(unlink("file") + ftruncate(fd, 4 * PAGE));
  pages(fd);
  char *whole = area(4, MAP_SHARED);
  for (int i = 0; i < 4; i++) whole[i * PAGE] = 'a' + i;
  T(remap_file_pages(whole, 4 * PAGE, 0, 0, 0));
  order(whole, 4);
  look(whole, 4);
  char word[16];
  fd = open("/proc/self/pagemap", O_RDONLY);
  T(read(fd, word, 7));
  T(pread(fd, word, 8, 4));
  T(pread(fd, word, 16, 0x7ffffffff000 / PAGE * 8 - 8));
  T(pread(fd, word, 16, 0x7ffffffff000 / PAGE * 8));
}

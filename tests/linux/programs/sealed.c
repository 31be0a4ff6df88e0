/* mseal: what can be done no more to sealed mappings, and what still can. Linux 6.18's rules; ENOSYS before 6.10. */
#include "check.h"

#ifndef SYS_mseal
#define SYS_mseal 462
#endif
#define PAGE 4096UL
#define FRESH(prot) mmap(0, 8 * PAGE, prot, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)

static char *base;

/* The protections of the eight pages, as /proc/self/maps has them. */
static void areas(void) {
  FILE *f = fopen("/proc/self/maps", "r");
  char line[512], perms[8];
  unsigned long from, to;
  printf("     areas:");
  while (fgets(line, sizeof line, f))
    if (sscanf(line, "%lx-%lx %7s", &from, &to, perms) == 3 && to > (unsigned long)base &&
        from < (unsigned long)base + 8 * PAGE) {
      long first = ((long)from - (long)base) / (long)PAGE, last = ((long)to - (long)base) / (long)PAGE;
      printf(" %ld-%ld %s", first < 0 ? 0 : first, last > 8 ? 8 : last, perms);
    }
  printf("\n");
  fclose(f);
}

static void advices(int prot) {
  static const int advice[] = {MADV_DONTNEED, MADV_FREE, MADV_REMOVE, MADV_DONTFORK, MADV_WIPEONFORK, MADV_DONTDUMP,
                               MADV_WILLNEED, 24, 102};
  for (int i = 0; i < (int)(sizeof advice / sizeof *advice); i++)
    printf("     protection %d, advice %d: %s\n", prot, advice[i],
           madvise(base, PAGE, advice[i]) ? strerrorname_np(errno) : "done");
}

int main(void) {
  setvbuf(stdout, 0, _IONBF, 0);
  char *hole = mmap(0, 24 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); /* keeps neighbours away */
  base = mmap(hole + 8 * PAGE, 8 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
  T(S(mseal, base, PAGE, 1));
  T(S(mseal, base + 1, PAGE, 0));
  T(S(mseal, base, -PAGE + 1, 0));
  T(S(mseal, base, 1UL << 62, 0));
  T(S(mseal, base, 0, 0));
  T(S(mseal, base + 2 * PAGE, 2 * PAGE, 0));
  areas();
  T(S(mseal, base + 2 * PAGE, PAGE, 0));
  T(mprotect(base, 8 * PAGE, PROT_READ));
  areas(); /* what lies before it has changed */
  T(mprotect(base + 2 * PAGE, PAGE, PROT_READ | PROT_WRITE));
  T(munmap(base, 8 * PAGE));
  T(munmap(base + 3 * PAGE, PAGE));
  areas();
  T(munmap(base + 7 * PAGE, PAGE));
  areas();
  T(mmap(base + 2 * PAGE, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED);
  T(mmap(base + PAGE, 4 * PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
  char *else_where = FRESH(PROT_READ);
  T(mremap(base + 2 * PAGE, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, else_where));
  T(mremap(base + 2 * PAGE, 2 * PAGE, PAGE, 0));
  T(mremap(base + 2 * PAGE, PAGE, 0, 0));
  T(mremap(else_where, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, base + 3 * PAGE));
  T(mlock(base + 2 * PAGE, PAGE));
  T(munlock(base + 2 * PAGE, PAGE));
  base[2 * PAGE] = 'x';
  if (!fork()) {
    T(munmap(base + 2 * PAGE, PAGE)); /* a child's are sealed too */
    T(base[2 * PAGE]);
    _exit(0);
  }
  wait(0);
  base = FRESH(PROT_READ | PROT_WRITE);
  T(S(mseal, base, 8 * PAGE, 0));
  advices(3);
  base = FRESH(PROT_READ);
  T(S(mseal, base, 8 * PAGE, 0));
  advices(1);
  int fd = open("/proc/self/exe", O_RDONLY);
  base = mmap(0, PAGE, PROT_READ, MAP_PRIVATE, fd, 0);
  T(S(mseal, base, PAGE, 0));
  advices(1);
  char *heap = sbrk(4 * PAGE);
  heap = (char *)(((unsigned long)heap + PAGE - 1) & -PAGE);
  T(S(mseal, heap + PAGE, PAGE, 0));
  T(brk(heap));
  T(brk(heap + 2 * PAGE));
  return 0;
}

/* The same page read, written, protected and given back, in every order; a store over the edge of what may be written. */
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

static sigjmp_buf back;
static volatile int faults;
static void handler(int number, siginfo_t *info, void *context) {
    faults += info->si_code;
    siglongjmp(back, 1);
}

int main(void) {
    struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO};
    sigaction(SIGSEGV, &action, NULL);
    for (int order = 0; order < 27; order++) {
        volatile char *map = mmap(0, 3 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        for (int step = order, n = 0; n < 3; n++, step /= 3) {
            if (step % 3 == 0) faults += map[4096];
            if (step % 3 == 1) map[4096]++;
            if (step % 3 == 2) mprotect((void *)map, 3 * 4096, n & 1 ? PROT_READ | PROT_WRITE : PROT_READ);
            if (sigsetjmp(back, 1) == 0) map[4096] = n;
        }
        mprotect((void *)(map + 4096), 4096, PROT_READ);
        if (sigsetjmp(back, 1) == 0) *(volatile long *)(map + 4092) = -1;
        mprotect((void *)(map + 4096), 4096, PROT_NONE);
        if (sigsetjmp(back, 1) == 0) faults += map[4096];
        madvise((void *)map, 3 * 4096, MADV_DONTNEED);
        mprotect((void *)map, 3 * 4096, PROT_READ | PROT_WRITE);
        faults += map[4096] + map[4092];
        munmap((void *)map, 3 * 4096);
        if (sigsetjmp(back, 1) == 0) map[0] = 1;
    }
    printf("%d\n", faults);
    return 0;
}

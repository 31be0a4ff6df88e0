/* Touch argv[1] pages of anonymous memory; argv[2]: write, read, or both (read first, then write). */
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

int main(int argc, char **argv) {
    unsigned long pages = strtoul(argv[1], 0, 0), sum = 0;
    if (!pages) return 0;
    volatile char *area = mmap(0, pages * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    madvise((void *)area, pages * 4096, MADV_NOHUGEPAGE);
    int read = argc > 2 && argv[2][0] != 'w', write = argc < 3 || argv[2][0] != 'r';
    for (unsigned long i = 0; i < pages; i++) {
        if (read) sum += area[i * 4096];
        if (write) area[i * 4096] = 1;
    }
    printf("%lu\n", sum);
    return 0;
}

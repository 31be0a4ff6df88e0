/* Walk through new memory in every order, and check what is there: status 0 if it is what it must be.
   argv[1] areas of 64 pages are touched in their first 33 pages only. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE 4096UL
typedef unsigned long word;

static word *pages(word count) {
    void *area = mmap(0, count * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (area == MAP_FAILED) _exit(90);
    return area;
}

static word *at(word *area, word page) { return area + page * (PAGE / sizeof(word)) + page % 512; }

static void zero(word *area, word first, word end, int code) {
    for (word page = first; page < end; page++)
        for (word i = 0; i < PAGE / sizeof(word); i++)
            if (area[page * (PAGE / sizeof(word)) + i]) _exit(code);
}

static void orders(void) {
    word *up = pages(700), *other = pages(700), *both = pages(700), *down = pages(300), *mixed = pages(1024);
    for (word i = 0; i < 700; i++) {
        *at(up, i) = i + 1, *at(other, i) = i + 2;
        if (*at(both, i)) _exit(1);
        *at(both, i) = i + 3;
    }
    for (word i = 300; i-- > 0;) *at(down, i) = i + 4;
    for (word i = 0, n = 1; i < 400; i++, n = (n * 5 + 3) % 1024) *at(mixed, n) = n + 5;
    for (word i = 0; i < 700; i++)
        if (*at(up, i) != i + 1 || *at(other, i) != i + 2 || *at(both, i) != i + 3) _exit(2);
    for (word i = 0; i < 300; i++)
        if (*at(down, i) != i + 4) _exit(3);
    for (word i = 0; i < 1024; i++)
        if (*at(mixed, i) && *at(mixed, i) != i + 5) _exit(4);
}

static void changes(void) {
    word *area = pages(256);
    mprotect(area + 128 * 512, 64 * PAGE, PROT_READ);
    for (word i = 0; i < 128; i++) *at(area, i) = i + 1;
    zero(area, 128, 256, 10);
    mprotect(area + 128 * 512, 64 * PAGE, PROT_READ | PROT_WRITE);
    for (word i = 128; i < 160; i++) *at(area, i) = i + 1;
    madvise(area, 64 * PAGE, MADV_DONTNEED);
    zero(area, 0, 64, 11);
    word *moved = mremap(area, 256 * PAGE, 512 * PAGE, MREMAP_MAYMOVE);
    for (word i = 64; i < 160; i++)
        if (*at(moved, i) != i + 1) _exit(12);
    zero(moved, 160, 512, 13);
    munmap(moved, 512 * PAGE);
}

static void calls(void) { /* the kernel's own writes and reads walk, too */
    int self = open("/proc/self/exe", O_RDONLY);
    char *first = (char *)pages(100), *second = (char *)pages(100);
    for (int i = 0; i < 3; i++) first[i * PAGE] = second[i * PAGE] = 1;
    long got = pread(self, first, 100 * PAGE, 0);
    if (got < 10 * (long)PAGE || pread(self, second, 100 * PAGE, 0) != got) _exit(20);
    if (memcmp(first, second, 100 * PAGE)) _exit(21);
    close(self);
}

int main(int argc, char **argv) {
    word count = argc > 1 ? strtoul(argv[1], 0, 0) : 0;
    orders();
    changes();
    word **areas = (word **)pages(1 + count * sizeof(word *) / PAGE);
    for (word n = 0; n < count; n++) {
        areas[n] = pages(64);
        for (word i = 0; i < 33; i++) *at(areas[n], i) = n + i + 1;
    }
    calls();
    for (word n = 0; n < count; n++) {
        for (word i = 0; i < 33; i++)
            if (*at(areas[n], i) != n + i + 1) _exit(30);
        zero(areas[n], 33, 64, 31);
    }
    return 0;
}

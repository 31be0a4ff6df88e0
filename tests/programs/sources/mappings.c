/* mmap and its relatives, each result printed; the list of mappings after each step shows splits and merges. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define PAGE 4096UL
static char *area;

static void step(const char *what, void *result) {
    char line[8192];
    if (result == MAP_FAILED) printf("%s: %s\n", what, strerror(errno));
    else printf("%s: %p\n", what, result);
    FILE *file = fopen("/proc/self/maps", "r");
    while (fgets(line, sizeof line, file)) fputs(line, stdout);
    fclose(file);
}

static void residency(const char *what, char *start, unsigned pages) {
    unsigned char vector[64] = {0};
    int result = mincore(start, pages * PAGE, vector);
    printf("%s: %d ", what, result ? errno : 0);
    for (unsigned i = 0; i < pages; i++) putchar('0' + (vector[i] & 1));
    putchar('\n');
}

#define ANON (MAP_PRIVATE | MAP_ANONYMOUS)
#define RW (PROT_READ | PROT_WRITE)

int main(void) {
    static char out[1 << 20];
    setvbuf(stdout, out, _IOFBF, sizeof out);
    step("sixteen pages", area = mmap(NULL, 16 * PAGE, RW, ANON, -1, 0));
    memset(area, 'x', 16 * PAGE);
    step("read-only hole", (void *)(long)mprotect(area + 4 * PAGE, 2 * PAGE, PROT_READ));
    step("and back", (void *)(long)mprotect(area + 4 * PAGE, 2 * PAGE, RW));
    step("none", (void *)(long)mprotect(area + 8 * PAGE, PAGE, PROT_NONE));
    step("unmap the middle", (void *)(long)munmap(area + 10 * PAGE, 2 * PAGE));
    step("fill it again", mmap(area + 10 * PAGE, 2 * PAGE, RW, ANON | MAP_FIXED, -1, 0));
    residency("after filling", area, 16);
    step("no replace", mmap(area, PAGE, RW, ANON | MAP_FIXED_NOREPLACE, -1, 0));
    step("replace by read-only", mmap(area, PAGE, PROT_READ, ANON | MAP_FIXED, -1, 0));
    printf("replaced page reads %d\n", area[0]);
    step("grow in place or move", mremap(area + 12 * PAGE, 4 * PAGE, 64 * PAGE, MREMAP_MAYMOVE));
    step("two megabytes", mmap(NULL, 2UL << 20, RW, ANON, -1, 0));
    step("three megabytes", mmap(NULL, 3UL << 20, RW, ANON, -1, 0));
    step("four megabytes and a page", mmap(NULL, (4UL << 20) + PAGE, RW, ANON, -1, 0));
    step("hint", mmap((void *)0x10000000UL, PAGE, RW, ANON, -1, 0));
    step("unaligned hint", mmap((void *)0x10003001UL, PAGE, RW, ANON, -1, 0));
    step("populate", area = mmap(NULL, 8 * PAGE, RW, ANON | MAP_POPULATE, -1, 0));
    residency("populated", area, 8);
    printf("don't need: %d\n", madvise(area + 2 * PAGE, 3 * PAGE, MADV_DONTNEED));
    residency("three given back", area, 8);
    printf("zero again: %d\n", area[2 * PAGE]);
    step("length 0", mmap(NULL, 0, RW, ANON, -1, 0));
    step("unaligned fixed", mmap((void *)0x10001, PAGE, RW, ANON | MAP_FIXED, -1, 0));
    step("too large", mmap(NULL, 1UL << 47, RW, ANON, -1, 0));
    step("bad descriptor", mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, 99, 0));
    printf("unmap nothing: %d %d\n", munmap((void *)0x20000000UL, PAGE), munmap((void *)0x20000001UL, PAGE));
    printf("protect nothing: %d", mprotect((void *)0x20000000UL, PAGE, PROT_READ));
    printf(" %s\n", strerror(errno));

    int fd = open("file", O_RDWR | O_CREAT | O_TRUNC, 0644);
    char text[3 * 4096];
    for (unsigned i = 0; i < sizeof text; i++) text[i] = (char)('a' + i % 26);
    write(fd, text, sizeof text - 100);
    char *shared = mmap(NULL, 3 * PAGE, RW, MAP_SHARED, fd, 0);
    char *private = mmap(NULL, 3 * PAGE, RW, MAP_PRIVATE, fd, 0);
    char *second = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, PAGE);
    printf("file: %.10s %.10s %.10s\n", shared, private + 1, second);
    memcpy(shared + PAGE, "SHARED", 6);
    memcpy(private + 2 * PAGE, "PRIVATE", 7);
    char back[8] = {0};
    pread(fd, back, 7, PAGE);
    printf("read sees %s, other mapping %.7s, private %.7s\n", back, second, private + PAGE);
    pread(fd, back, 7, 2 * PAGE);
    printf("read sees %s, shared %.7s, private %.7s\n", back, shared + 2 * PAGE, private + 2 * PAGE);
    pwrite(fd, "WRITTEN", 7, 0);
    printf("shared sees %.7s, private %.7s\n", shared, private);
    printf("tail past end of file: %d %d\n", shared[sizeof text - 100], shared[sizeof text - 1]);
    printf("msync %d %d\n", msync(shared, 3 * PAGE, MS_SYNC), msync(shared + 1, PAGE, MS_SYNC));
    printf("too big an offset: %p\n", mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, -4096));
    printf("unaligned offset: %p %s\n", mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, 100), strerror(errno));
    close(fd);
    fd = open("file", O_RDONLY);
    printf("shared write of a read-only file: %p %s\n", mmap(NULL, PAGE, RW, MAP_SHARED, fd, 0), strerror(errno));
    return 0;
}

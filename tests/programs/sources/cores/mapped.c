/* A file in memory: private and shared mappings, what they see of each other and of write(2), SIGBUS past its end. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static sigjmp_buf back;
static void handler(int number) { siglongjmp(back, number); }

int main(void) {
    int fd = open("mapped", O_RDWR | O_CREAT, 0600);
    signal(SIGBUS, handler);
    ftruncate(fd, 5 * 4096);
    char *shared = mmap(0, 6 * 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    char *private = mmap(0, 6 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    int zero = private[4096];
    shared[4096] = 'a';
    printf("%d %c\n", zero, private[4096]);
    private[4096]++;
    shared[4096] = 'c';
    pwrite(fd, "written", 7, 2 * 4096);
    printf("%c %.7s %.7s\n", private[4096], shared + 2 * 4096, private + 2 * 4096);
    msync(shared, 5 * 4096, MS_SYNC);
    munmap(private, 4096);
    private = mremap(private + 4096, 5 * 4096, 9 * 4096, MREMAP_MAYMOVE);
    printf("%c\n", private[0]);
    if (sigsetjmp(back, 1) == 0) shared[5 * 4096] = 1;
    else puts("past the end");
    ftruncate(fd, 4096);
    if (sigsetjmp(back, 1) == 0) printf("%c\n", shared[4096]);
    else puts("cut off");
    unsigned char resident[6];
    printf("%d %d\n", mincore(shared, 6 * 4096, resident), shared[0]);
    unlink("mapped");
    return 0;
}

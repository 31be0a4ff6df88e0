/* Machine code in pages that are mapped twice: written at one address, run at the other. */
#define _GNU_SOURCE
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

typedef int (*function)(void);

int main(void) {
    unsigned char code[] = {0xb8, 0, 0, 0, 0, 0xc3}; /* mov $n, %eax; ret */
    int sum = 0, fd = memfd_create("code", 0);
    ftruncate(fd, 4096);
    unsigned char *one = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    unsigned char *two = mmap(0, 4096, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
    for (int n = 0; n < 5; n++) {
        code[1] = n * 20;
        memcpy(one, code, sizeof code);
        sum += ((function)two)();
    }
    printf("%d\n", sum);
    return 0;
}

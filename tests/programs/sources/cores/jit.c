/* Writes machine code and runs it: changed in place, and after mprotect. */
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

typedef int (*function)(void);

int main(void) {
    unsigned char code[] = {0xb8, 0, 0, 0, 0, 0xc3}; /* mov $n, %eax; ret */
    unsigned char *page = mmap(0, 8192, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int sum = 0;
    for (int n = 0; n < 50; n++) {
        code[1] = n;
        memcpy(page + n % 3 * 64, code, sizeof code);
        sum += ((function)(page + n % 3 * 64))();
    }
    mprotect(page, 4096, PROT_READ | PROT_WRITE);
    page[1] = 7;
    mprotect(page, 4096, PROT_READ | PROT_EXEC);
    printf("%d\n", sum + ((function)page)());
    return 0;
}

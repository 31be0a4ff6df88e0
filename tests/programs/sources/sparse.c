/* A gigabyte of .bss, or of mmap, of which ten pages are touched. Prints how much of it is resident. */
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define SIZE (1UL << 30)
static char bss[SIZE];

static long resident(void) {
    char line[256];
    long kilobytes = -1;
    FILE *file = fopen("/proc/self/status", "r");
    while (file && fgets(line, sizeof line, file)) sscanf(line, "VmRSS: %ld", &kilobytes);
    if (file) fclose(file);
    return kilobytes;
}

int main(int argc, char **argv) {
    char *area = bss;
    if (argc > 1) area = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    resident();
    long before = resident();
    for (unsigned long i = 0; i < 10; i++) area[i * (SIZE / 10) + 123] = (char)(i + 1);
    long after = resident();
    int sum = 0;
    for (unsigned long i = 0; i < 10; i++) sum += area[i * (SIZE / 10) + 123];
    printf("%d %ld\n", sum, after - before);
    return 0;
}

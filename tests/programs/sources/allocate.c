/* A small malloc moves the program break, a large one maps: shown by the process's own list of mappings. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void maps(const char *when) {
    char line[8192];
    FILE *file = fopen("/proc/self/maps", "r");
    static char buffer[4096];
    setvbuf(file, buffer, _IOFBF, sizeof buffer);
    printf("-- %s\n", when);
    while (fgets(line, sizeof line, file)) fputs(line, stdout);
    fclose(file);
}

int main(void) {
    static char out[65536];
    setvbuf(stdout, out, _IOFBF, sizeof out);
    maps("start");
    char *before = sbrk(0);
    char *small = malloc(1000);
    memset(small, 1, 1000);
    char *after = sbrk(0);
    printf("break moved: %d, small inside the heap: %d\n", after > before, small < after);
    maps("small");
    char *large = malloc(1 << 20);
    memset(large, 1, 1 << 20);
    printf("break moved: %d, large outside the heap: %d\n", (char *)sbrk(0) > after, large > after);
    maps("large");
    free(large);
    maps("freed");
    large = realloc(malloc(3 << 20), 40 << 20);
    large[39 << 20] = 1;
    maps("grown");
    for (int i = 0; i < 3000; i++) { char *p = malloc(i); if (p) memset(p, i, i); }
    maps("many");
    return 0;
}

/* The heap: growth by realloc, calloc of what was used before, large blocks that are mapped, the break itself. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int main(void) {
    char *blocks[64], *grown = NULL, *top = sbrk(0);
    long sum = 0;
    for (int i = 1; i <= 40; i++) { grown = realloc(grown, i * 5000); grown[i * 5000 - 1] = i; }
    for (int i = 0; i < 64; i++) { blocks[i] = malloc(100 + i * i * 10); memset(blocks[i], i, 100); }
    for (int i = 0; i < 64; i += 2) free(blocks[i]);
    for (int i = 0; i < 64; i += 2) { blocks[i] = calloc(1, 3000); for (int j = 0; j < 3000; j += 500) sum += blocks[i][j]; }
    char *large = malloc(3 << 20);
    large[1 << 20] = 1;
    free(large);
    sbrk(100000);
    *(char *)((char *)sbrk(0) - 1) = 5;
    sbrk(-50000);
    printf("%ld %d %d\n", sum, grown[4999], (char *)sbrk(0) > top);
    return 0;
}

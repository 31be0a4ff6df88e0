/* FNV-1a over a counter, argv[1] rounds: a chain of multiplications in registers. */
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv) {
    unsigned long rounds = strtoul(argv[1], 0, 0), hash = 0xcbf29ce484222325;
    for (unsigned long i = 0; i < rounds; i++) hash = (hash ^ (i & 0xff)) * 0x100000001b3;
    printf("%lx\n", hash);
    return 0;
}

/* Count the primes below argv[1] by trial division: integer division and branches. */
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv) {
    unsigned limit = argc > 1 ? strtoul(argv[1], 0, 0) : 1000, count = 0;
    for (unsigned n = 2; n < limit; n++) {
        unsigned d = 2;
        while (d * d <= n && n % d) d++;
        count += d * d > n;
    }
    printf("%u\n", count);
    return 0;
}

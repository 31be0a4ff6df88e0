/* Integers of every width, doubles, long doubles, and conversions between them. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>

int main(void) {
    double matrix[32][32], sum = 0;
    long double series = 0;
    uint64_t hash = 14695981039346656037u;
    for (int i = 0; i < 32; i++) for (int j = 0; j < 32; j++) matrix[i][j] = 1.0 / (i + j + 1);
    for (int k = 0; k < 32; k++) for (int i = 0; i < 32; i++) sum += matrix[i][k] * matrix[k][i];
    for (int i = 1; i < 1000; i++) series += 1.0L / ((long double)i * i);
    for (int i = 0; i < 100000; i++) hash = (hash ^ (unsigned char)i) * 1099511628211u;
    __int128 wide = (__int128)hash * hash;
    printf("%.17g %.20Lg %" PRIx64 " %" PRIx64 " %d\n", sum, series, hash, (uint64_t)(wide >> 64), (int)(sum * -1e9));
    printf("%g %g %g\n", sqrt(2), floor(-2.5), fmod(10, 3));
    return 0;
}

/* Plain code for a long time, and then, ten calls deep, one function for AVX2, FMA and BMI2. "plain": never. */
#include <immintrin.h>
#include <stdio.h>
#include <string.h>

__attribute__((target("avx2,fma,bmi2"), noinline)) static double wide(const double *a, const double *b, unsigned long bits) {
    __m256d sum = _mm256_setzero_pd();
    double parts[4];
    for (int i = 0; i < 64; i += 4) sum = _mm256_fmadd_pd(_mm256_loadu_pd(a + i), _mm256_loadu_pd(b + i), sum);
    _mm256_storeu_pd(parts, sum);
    return parts[0] + parts[1] + parts[2] + parts[3] + _pext_u64(bits, 0xff00ff) + _mulx_u64(bits, bits, (void *)parts);
}

__attribute__((noinline)) static double descend(int depth, const double *a, const double *b) {
    if (depth > 0) return descend(depth - 1, a, b) + depth;
    return wide(a, b, 0x123456789abcdef);
}

int main(int argc, char **argv) {
    double a[64], b[64], sum = 0;
    for (int i = 0; i < 64; i++) { a[i] = i * 0.25; b[i] = 1.0 / (i + 1); }
    for (int turn = 0; turn < 100000; turn++) sum += a[turn % 64] * b[turn % 63];
    printf("%.12g\n", sum);
    fflush(stdout);
    if (argc < 2 || strcmp(argv[1], "plain")) printf("%.12g\n", descend(10, a, b));
    return 0;
}

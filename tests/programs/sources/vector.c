/* Eight floats at once, in a VEX-encoded instruction. */
#include <immintrin.h>
#include <stdio.h>

int main(void) {
    volatile float in[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    float out[8];
    __m256 a = _mm256_loadu_ps((float *)in);
    _mm256_storeu_ps(out, _mm256_add_ps(a, a));
    for (int i = 0; i < 8; i++) printf("%g ", out[i]);
    puts("");
    return 0;
}

/* Every floating-point width, printed to the last digit; x87 where the ABI uses it. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

int main(void) {
    volatile long double third = 1.0L / 3.0L, big = 1e4000L, tiny = 3.6e-4951L;
    volatile double d = 0.1, zero = 0.0;
    volatile float f = 0.1f;
    printf("%.30Lf %Lg %La\n", third, third, third);
    printf("%Lg %Lg %.25Le\n", big, tiny, third * big);
    printf("%.20f %a %e %g\n", d, d, d * 1e300, -d);
    printf("%.12f %a\n", f, f);
    printf("%f %f %f\n", 1 / zero, -1 / zero, zero / zero);
    printf("%.18Lf\n", strtold("3.14159265358979323846264338327950288", NULL));
    printf("%.17g %.17g\n", strtod("0.1", NULL) + 0.2, strtod("1e-320", NULL));
    printf("%d %ld %lld %u %lx\n", (int)-3.99, lrint(2.5), llrintl(-2.5L), (unsigned)3e9, (unsigned long)1e19);
    long double sum = 0;
    for (int i = 1; i < 1000; i++) sum += 1.0L / i;
    printf("%.20Lf\n", sum);
    double harmonic = 0;
    for (int i = 1; i < 1000; i++) harmonic += 1.0 / i;
    printf("%.17g %.17g %.17g\n", harmonic, sqrt(harmonic), fmod(harmonic, 0.3));
    printf("%.20Lf %.20Lf\n", sqrtl(2.0L), fabsl(-third));
    return 0;
}

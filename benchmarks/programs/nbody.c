/* Five bodies under gravity, argv[1] steps in double precision; prints the energy before and after. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define BODIES 5
static double mass[BODIES] = {39.4784, 0.0377, 0.0113, 0.0017, 0.0020};
static double position[BODIES][3] = {
    {0, 0, 0}, {4.84, -1.16, -0.10}, {8.34, 4.12, -0.40}, {12.89, -15.11, -0.22}, {15.38, -25.92, 0.18}};
static double velocity[BODIES][3] = {
    {0, 0, 0}, {0.61, 2.81, -0.02}, {-1.01, 1.82, 0.01}, {1.08, 0.87, -0.01}, {0.98, 0.59, -0.03}};

static double energy(void) {
    double sum = 0;
    for (int i = 0; i < BODIES; i++) {
        for (int k = 0; k < 3; k++) sum += 0.5 * mass[i] * velocity[i][k] * velocity[i][k];
        for (int j = i + 1; j < BODIES; j++) {
            double square = 0;
            for (int k = 0; k < 3; k++) square += (position[i][k] - position[j][k]) * (position[i][k] - position[j][k]);
            sum -= mass[i] * mass[j] / sqrt(square);
        }
    }
    return sum;
}

int main(int argc, char **argv) {
    long steps = argc > 1 ? atol(argv[1]) : 1000;
    printf("%.12f\n", energy());
    for (long step = 0; step < steps; step++) {
        for (int i = 0; i < BODIES; i++)
            for (int j = i + 1; j < BODIES; j++) {
                double apart[3], square = 0;
                for (int k = 0; k < 3; k++) {
                    apart[k] = position[i][k] - position[j][k];
                    square += apart[k] * apart[k];
                }
                double pull = 0.001 / (square * sqrt(square));
                for (int k = 0; k < 3; k++) {
                    velocity[i][k] -= apart[k] * mass[j] * pull;
                    velocity[j][k] += apart[k] * mass[i] * pull;
                }
            }
        for (int i = 0; i < BODIES; i++)
            for (int k = 0; k < 3; k++) position[i][k] += 0.001 * velocity[i][k];
    }
    printf("%.12f\n", energy());
    return 0;
}

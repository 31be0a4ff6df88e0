/* Sleeps, timers that ring while it sleeps, and what the clocks say in between. */
#include <signal.h>
#include <stdio.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile int rang;
static void ring(int number) { rang++; }

int main(void) {
    struct timespec before, after;
    struct sigaction action = {.sa_handler = ring};
    sigaction(SIGALRM, &action, NULL);
    clock_gettime(CLOCK_MONOTONIC, &before);
    nanosleep(&(struct timespec){0, 30000000}, NULL);
    clock_gettime(CLOCK_MONOTONIC, &after);
    printf("%ld\n", (after.tv_sec - before.tv_sec) * 1000 + (after.tv_nsec - before.tv_nsec) / 1000000);
    setitimer(ITIMER_REAL, &(struct itimerval){{0, 10000}, {0, 10000}}, NULL);
    while (rang < 3) pause();
    setitimer(ITIMER_REAL, &(struct itimerval){{0, 0}, {0, 0}}, NULL);
    alarm(1);
    printf("%d, %d left of a long sleep\n", rang, nanosleep(&(struct timespec){5, 0}, NULL));
    return 0;
}

/* Interval timers that go off while the program computes, waits for any signal, reads a pipe and sleeps. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile int count;

static void tick(int number) { count++; }

int main(void) {
    setvbuf(stdout, 0, _IONBF, 0);
    struct sigaction action = {.sa_handler = tick};
    sigaction(SIGALRM, &action, 0);
    struct itimerval every = {{0, 20000}, {0, 20000}}, left;
    setitimer(ITIMER_REAL, &every, 0);
    while (count < 3)
        ;
    printf("computed\npause %d errno %d\n", pause(), errno);
    char byte;
    int ends[2];
    pipe(ends);
    printf("read %zd", read(ends[0], &byte, 1));
    printf(" errno %d\n", errno);
    struct timespec long_time = {100, 0}, rest;
    printf("sleep %d", nanosleep(&long_time, &rest));
    printf(" errno %d rest %d\n", errno, rest.tv_sec > 50);
    getitimer(ITIMER_REAL, &left);
    printf("interval %d left %d\n", (int)left.it_interval.tv_usec, left.it_value.tv_usec <= 20000);
    every = (struct itimerval){{0}};
    setitimer(ITIMER_REAL, &every, &left);
    printf("alarm %u\n", alarm(100));
    printf("alarm %d\n", alarm(0) > 50);
    action.sa_handler = SIG_DFL;
    sigaction(SIGALRM, &action, 0);
    every.it_value.tv_usec = 10000;
    setitimer(ITIMER_REAL, &every, 0);
    for (;;)
        ;
}

/* Signals sent to oneself: queued with values, blocked, waited for, on another stack, inside each other. */
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static volatile int total, depth;
static void handler(int number, siginfo_t *info, void *context) {
    depth++;
    total = total * 3 + info->si_value.sival_int + number + depth;
    if (number == SIGUSR1 && depth < 3) raise(SIGUSR2);
    depth--;
}

int main(void) {
    struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    stack_t other = {.ss_sp = malloc(65536), .ss_size = 65536};
    sigset_t set, old;
    sigaltstack(&other, NULL);
    sigemptyset(&set);
    for (int number = SIGRTMIN; number < SIGRTMIN + 3; number++) { sigaction(number, &action, NULL); sigaddset(&set, number); }
    sigaction(SIGUSR1, &action, NULL);
    sigaction(SIGUSR2, &action, NULL);
    raise(SIGUSR1);
    sigprocmask(SIG_BLOCK, &set, &old);
    for (int i = 0; i < 6; i++) sigqueue(getpid(), SIGRTMIN + i % 3, (union sigval){.sival_int = i});
    siginfo_t info;
    printf("%d", sigtimedwait(&set, &info, &(struct timespec){0, 0}) - SIGRTMIN);
    printf(" %d\n", info.si_value.sival_int);
    sigsuspend(&old);
    sigprocmask(SIG_SETMASK, &old, NULL);
    printf("%d\n", total);
    return 0;
}

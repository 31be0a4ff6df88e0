/* Handlers that come back: repair the page and go on; jump out with siglongjmp; nested signals; masks. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

static char *page;
static volatile int repaired, nested;
static sigjmp_buf back;

static void repair(int number, siginfo_t *info, void *context) {
    repaired++;
    mprotect((void *)((unsigned long)info->si_addr & ~4095UL), 4096, PROT_READ | PROT_WRITE);
}

static void escape(int number, siginfo_t *info, void *context) { siglongjmp(back, info->si_signo); }

static void skip(int number, siginfo_t *info, void *context) {
    ((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP] += 2;
}

static void inner(int number) {
    sigset_t now;
    sigprocmask(SIG_BLOCK, NULL, &now);
    nested = nested * 10 + (number == SIGUSR2 ? 2 : 1) + sigismember(&now, SIGUSR1);
    if (number == SIGUSR1) raise(SIGUSR2);
}

int main(void) {
    struct sigaction action = {.sa_sigaction = repair, .sa_flags = SA_SIGINFO};
    sigaction(SIGSEGV, &action, NULL);
    page = mmap(NULL, 8 * 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    double before = 1.5;
    for (int i = 0; i < 8; i++) { page[i * 4096] = (char)i; before *= 1.25; }
    printf("repaired %d, values %d %d, floating point %.10f\n", repaired, page[4096], page[7 * 4096], before);

    action.sa_sigaction = escape;
    sigaction(SIGSEGV, &action, NULL);
    sigaction(SIGFPE, &action, NULL);
    for (int i = 0; i < 3; i++) {
        int number = sigsetjmp(back, 1);
        if (number) { printf("came back from %d\n", number); continue; }
        *(volatile char *)8 = 1;
    }
    action.sa_sigaction = skip;
    sigaction(SIGILL, &action, NULL);
    __asm__ volatile("ud2");
    printf("skipped ud2\n");

    struct sigaction plain = {.sa_handler = inner};
    sigaction(SIGUSR1, &plain, NULL);
    sigaction(SIGUSR2, &plain, NULL);
    raise(SIGUSR1);
    printf("nested %d\n", nested);

    sigset_t block, pending;
    sigemptyset(&block);
    sigaddset(&block, SIGUSR2);
    sigprocmask(SIG_BLOCK, &block, NULL);
    raise(SIGUSR2);
    sigpending(&pending);
    printf("pending %d, nested %d\n", sigismember(&pending, SIGUSR2), nested);
    sigprocmask(SIG_UNBLOCK, &block, NULL);
    printf("delivered, nested %d\n", nested);

    signal(SIGUSR1, SIG_IGN);
    raise(SIGUSR1);
    plain.sa_flags = SA_RESETHAND;
    sigaction(SIGUSR2, &plain, NULL);
    raise(SIGUSR2);
    struct sigaction now;
    sigaction(SIGUSR2, NULL, &now);
    printf("reset to default %d, nested %d\n", now.sa_handler == SIG_DFL, nested);
    fflush(stdout);
    raise(SIGUSR2);
    return 0;
}

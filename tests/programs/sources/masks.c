/* What rt_sigprocmask(2) says, in whatever order it is asked, with signals that come in between. */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static volatile int handled;
static uint64_t in_handler;

static long change(int how, const void *set, void *old, size_t size) {
    return syscall(SYS_rt_sigprocmask, how, set, old, size) ? -errno : 0;
}

static uint64_t now(void) {
    uint64_t mask = 0;
    change(SIG_BLOCK, NULL, &mask, 8);
    return mask;
}

static void handler(int number) {
    in_handler = now();
    handled += number;
}

static void show(const char *what, long result) { printf("%s: %ld, %#lx, handled %d\n", what, result, (long)now(), handled); }

static void *thread(void *none) {
    (void)none;
    uint64_t mask = 0x5500;
    show("a thread inherits", change(SIG_SETMASK, &mask, NULL, 8));
    return NULL;
}

int main(void) {
    uint64_t usr1 = 1ul << (SIGUSR1 - 1), everything = ~0ul, nothing = 0, pair[2] = {0x1234, 0};
    struct sigaction action = {.sa_handler = handler};
    sigaction(SIGUSR1, &action, NULL);
    setvbuf(stdout, NULL, _IOFBF, 1 << 16);
    for (int i = 0; i < 3; i++) {
        show("block", change(SIG_BLOCK, &usr1, pair, 8));
        show("block all", change(SIG_BLOCK, &everything, pair + 1, 8));
        show("unblock", change(SIG_UNBLOCK, &usr1, pair, 8));
        show("set", change(SIG_SETMASK, &nothing, &pair[1], 8));
        printf("%#lx %#lx\n", (long)pair[0], (long)pair[1]);
    }
    pair[0] = 0xf000;
    show("set and old at one place", change(SIG_BLOCK, pair, pair, 8));
    printf("%#lx\n", (long)pair[0]);
    show("how 3", change(3, &usr1, NULL, 8));
    show("how 3 without a set", change(3, NULL, pair, 8));
    show("how -1", change(-1, &usr1, NULL, 8));
    show("size 4", change(SIG_SETMASK, &usr1, NULL, 4));
    show("bad set", change(SIG_SETMASK, (void *)8, NULL, 8));
    show("bad old", change(SIG_SETMASK, &nothing, (void *)8, 8));
    show("kernel's set", change(SIG_SETMASK, (void *)0xffffff8000010050, NULL, 8));
    show("kernel's old", change(SIG_SETMASK, &usr1, (void *)0xffffff8000010050, 8));
    show("restored", change(SIG_SETMASK, &nothing, NULL, 8));

    char *pages = mmap(NULL, 3 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    munmap(pages + 8192, 4096);
    memcpy(pages + 8188, &usr1, 4);
    show("half a set", change(SIG_SETMASK, pages + 8188, NULL, 8));
    show("half an old", change(SIG_SETMASK, &usr1, pages + 8188, 8));
    memcpy(pages + 4092, &nothing, 8);
    show("across pages", change(SIG_SETMASK, pages + 4092, pages + 4091, 8));

    change(SIG_BLOCK, &usr1, NULL, 8);
    raise(SIGUSR1);
    show("pending", change(SIG_BLOCK, &usr1, NULL, 8));
    show("let in", change(SIG_UNBLOCK, &usr1, NULL, 8));
    printf("in the handler %#lx\n", (long)in_handler);
    for (int i = 0; i < 200; i++) {
        change(SIG_BLOCK, &usr1, NULL, 8);
        kill(getpid(), SIGUSR1);
        int before = handled;
        change(SIG_UNBLOCK, &usr1, NULL, 8);
        if (handled == before) printf("lost at %d\n", i);
    }
    show("all came", 0);

    change(SIG_SETMASK, &usr1, NULL, 8);
    pthread_t other;
    pthread_create(&other, NULL, thread, NULL);
    pthread_join(other, NULL);
    show("after the thread", 0);
    fflush(stdout);
    if (!fork()) {
        show("a child inherits", change(SIG_BLOCK, &everything, NULL, 8));
        fflush(stdout);
        char *words[] = {"/bin/grep", "SigBlk", "/proc/self/status", NULL};
        execv(words[0], words);
        _exit(1);
    }
    wait(NULL);
    show("after the child", 0);
    fflush(stdout);
    char line[128];
    FILE *status = fopen("/proc/self/status", "r");
    while (fgets(line, sizeof line, status))
        if (!strncmp(line, "Sig", 3) && line[3] != 'Q') fputs(line, stdout);
    return 0;
}

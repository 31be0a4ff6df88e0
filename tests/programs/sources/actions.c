/* What rt_sigaction(2) says, in whatever order it is asked, and what becomes of it. */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/sched.h>
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

struct action {
    uint64_t handler, flags, restorer, mask;
};

static volatile int handled;

static long set(int number, const void *new, void *old, size_t size) {
    return syscall(SYS_rt_sigaction, number, new, old, size) ? -errno : 0;
}

static void tell(const char *what, int number, long result) {
    struct action now = {1, 2, 3, 4};
    long asked = set(number, NULL, &now, 8);
    printf("%s: %ld; %d now %ld: %#lx %#lx %#lx %#lx, handled %d\n", what, result, number, asked, (long)now.handler,
           (long)now.flags, (long)now.restorer, (long)now.mask, handled);
}

static void handler(int number) { handled += number; }

static void *thread(void *none) {
    struct action other = {0x77, 0, 0, 0};
    tell("a thread sees", 35, 0);
    tell("and sets", 36, set(36, &other, NULL, 8));
    return none;
}

int main(void) {
    struct action all = {0x1234, ~0ul, 0x5678, ~0ul}, none = {0}, ignored = {1, 0, 0, 0}, pair[2];
    setvbuf(stdout, NULL, _IOFBF, 1 << 16);
    for (int number = -1; number <= 66; number++) {
        memset(pair, 5, sizeof pair);
        tell("set", number, set(number, &all, pair, 8));
        printf("before %#lx\n", (long)pair[0].handler);
        tell("again", number, set(number, &none, pair + 1, 8));
        printf("before %#lx %#lx %#lx %#lx\n", (long)pair[1].handler, (long)pair[1].flags, (long)pair[1].restorer,
               (long)pair[1].mask);
    }
    pair[0] = all;
    tell("at one place", 34, set(34, pair, pair, 8));
    printf("%#lx\n", (long)pair[0].handler);
    tell("size 4", 34, set(34, &none, NULL, 4));
    tell("bad new", 34, set(34, (void *)8, NULL, 8));
    tell("bad old", 34, set(34, &ignored, (void *)8, 8));
    tell("kernel's old", 34, set(34, &all, (void *)0xffffff8000010000, 8));
    tell("kernel's new", 34, set(34, (void *)0xffffff8000010000, NULL, 8));
    char *pages = mmap(NULL, 3 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    munmap(pages + 8192, 4096);
    tell("half a new", 34, set(34, pages + 8176, NULL, 8));
    tell("half an old", 34, set(34, &ignored, pages + 8176, 8));
    memcpy(pages + 4080, &all, sizeof all);
    tell("across pages", 34, set(34, pages + 4080, pages + 4070, 8));

    struct sigaction once = {.sa_handler = handler, .sa_flags = SA_RESETHAND};
    for (int i = 0; i < 20; i++) {
        sigaction(SIGUSR1, &once, NULL);
        raise(SIGUSR1);
        struct sigaction after;
        sigaction(SIGUSR1, NULL, &after);
        if (after.sa_handler != SIG_DFL) printf("not reset\n");
    }
    struct sigaction often = {.sa_handler = handler};
    sigaction(SIGUSR2, &often, NULL);
    sigset_t block;
    sigemptyset(&block);
    sigaddset(&block, SIGUSR2);
    sigprocmask(SIG_BLOCK, &block, NULL);
    raise(SIGUSR2);
    tell("ignored while pending", SIGUSR2, set(SIGUSR2, &ignored, NULL, 8));
    sigaction(SIGUSR2, &often, NULL);
    sigprocmask(SIG_UNBLOCK, &block, NULL);
    printf("handled %d: it was forgotten\n", handled);

    set(35, &all, NULL, 8);
    set(40, &ignored, NULL, 8);
    pthread_t other;
    pthread_create(&other, NULL, thread, NULL);
    pthread_join(other, NULL);
    tell("of the thread", 36, 0);
    fflush(stdout);
    if (!fork()) {
        tell("a child has", 35, 0);
        tell("and changes", 35, set(35, &none, NULL, 8));
        fflush(stdout);
        char *words[] = {"/bin/grep", "-E", "Sig(Ign|Cgt)", "/proc/self/status", NULL};
        execv(words[0], words);
        _exit(1);
    }
    wait(NULL);
    tell("not for its parent", 35, 0);
    if (!vfork()) {
        set(41, &ignored, NULL, 8);
        _exit(0);
    }
    wait(NULL);
    tell("after vfork", 41, 0);
    struct clone_args how = {.flags = CLONE_CLEAR_SIGHAND, .exit_signal = SIGCHLD};
    fflush(stdout);
    if (!syscall(SYS_clone3, &how, sizeof how)) {
        tell("cleared", 35, 0);
        tell("but not what is ignored", 40, 0);
        fflush(stdout);
        _exit(0);
    }
    wait(NULL);
    return 0;
}

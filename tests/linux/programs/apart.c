/* Threads and processes with and without descriptors and directories of their own: clone, unshare, close_range. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static int kept;
static pthread_barrier_t step;
static const char *err(int r) { return r < 0 ? strerrorname_np(errno) : "0"; }
static void where(const char *who)
{
    char here[400];
    mode_t mask = umask(0);
    umask(mask);
    printf("%s: %s, mask %o, descriptor %s\n", who, getcwd(here, sizeof here) ? here : "?", mask, err(fcntl(kept, F_GETFD)));
}

static void *thread(void *flags)
{
    int mine;
    pthread_barrier_wait(&step);
    where("thread");
    printf("unshare %s\n", err(unshare((long)flags)));
    chdir("/tmp");
    umask(077);
    close(kept);
    mine = open("/dev/null", O_RDONLY);
    printf("it opens %d\n", mine - kept);
    where("thread");
    pthread_barrier_wait(&step);
    pthread_barrier_wait(&step);
    where("thread again");
    return 0;
}

static void with(long flags)
{
    pthread_t t;
    chdir("/usr");
    umask(022);
    kept = open("/dev/zero", O_RDONLY);
    printf("== %lx\n", flags);
    pthread_create(&t, 0, thread, (void *)flags);
    pthread_barrier_wait(&step);
    pthread_barrier_wait(&step);
    where("main");
    chdir("/etc");
    pthread_barrier_wait(&step);
    pthread_join(t, 0);
    where("main at last");
    close(kept);
}

static int clone_child(void *unused)
{
    chdir("/");
    close(kept);
    syscall(SYS_exit, 0);
    return 0;
}

static void cloned(int flags)
{
    static char stack[65536] __attribute__((aligned(16)));
    static volatile int tid;
    chdir("/usr");
    kept = open("/dev/zero", O_RDONLY);
    tid = 1;
    int r = clone(clone_child, stack + sizeof stack, CLONE_VM | CLONE_SIGHAND | CLONE_THREAD | CLONE_CHILD_CLEARTID | flags, 0, 0, 0, &tid);
    if (r < 0)
        printf("clone %s\n", err(r));
    while (r >= 0 && tid)
        sched_yield();
    printf("== clone %x: ", flags);
    where("then");
    close(kept);
}

int main(void)
{
    setvbuf(stdout, 0, _IOLBF, 0);
    pthread_barrier_init(&step, 0, 2);
    with(0);
    with(CLONE_FILES);
    with(CLONE_FS);
    with(CLONE_FILES | CLONE_FS | CLONE_SYSVSEM);
    with(CLONE_THREAD);
    with(0x80000000u | 1);
    for (int flags = 0; flags < 4; flags++)
        cloned((flags & 1 ? CLONE_FS : 0) | (flags & 2 ? CLONE_FILES : 0));
    /* alone: nothing to take apart, and what another process shares */
    printf("alone: %s", err(unshare(CLONE_FILES | CLONE_FS | CLONE_SYSVSEM)));
    printf(" %s", err(unshare(CLONE_THREAD | CLONE_SIGHAND | CLONE_VM)));
    printf(" %s\n", err(unshare(-1)));
    kept = open("/dev/zero", O_RDONLY);
    for (int own = 0; own < 2; own++) {
        int status;
        pid_t pid = syscall(SYS_clone, CLONE_FILES | SIGCHLD, 0, 0, 0, 0);
        if (pid == 0) {
            if (own)
                unshare(CLONE_FILES);
            close(kept);
            _exit(0);
        }
        waitpid(pid, &status, 0);
        printf("another process, own %d: %s\n", own, err(fcntl(kept, F_GETFD)));
        kept = open("/dev/zero", O_RDONLY);
    }
    pid_t pid = syscall(SYS_clone, CLONE_FILES | SIGCHLD, 0, 0, 0, 0);
    if (pid == 0) {
        close_range(3, 100, 2 /* CLOSE_RANGE_UNSHARE */);
        _exit(fcntl(kept, F_GETFD) >= 0);
    }
    int status;
    waitpid(pid, &status, 0);
    printf("close_range: %d, here %s\n", WEXITSTATUS(status), err(fcntl(kept, F_GETFD)));
    return 0;
}

/* Robust mutexes: their owner ends, in a thread, in another process, by exec, by a signal; and what waiters get. */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

struct shared {
    pthread_mutex_t lock, second;
    pthread_barrier_t ready;
    int told;
};

static struct shared *area;

static void make(pthread_mutex_t *lock, int protocol, int type)
{
    pthread_mutexattr_t a;
    pthread_mutexattr_init(&a);
    pthread_mutexattr_setpshared(&a, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_setrobust(&a, PTHREAD_MUTEX_ROBUST);
    pthread_mutexattr_setprotocol(&a, protocol);
    pthread_mutexattr_settype(&a, type);
    memset(lock, 0, sizeof *lock);
    printf("init %d\n", pthread_mutex_init(lock, &a));
}

static uint32_t word(pthread_mutex_t *lock) { return (uint32_t)lock->__data.__lock; }

static void show(const char *what, int result)
{
    uint32_t w = word(&area->lock);
    printf("%s: %s, word %s%s%s\n", what, result ? strerrorname_np(result) : "0", w & FUTEX_WAITERS ? "waiters " : "",
           w & FUTEX_OWNER_DIED ? "died " : "", w & FUTEX_TID_MASK ? ((w & FUTEX_TID_MASK) == (uint32_t)syscall(SYS_gettid) ? "mine" : "other's") : "free");
    fflush(stdout);
}

static void *die_with_it(void *both)
{
    pthread_mutex_lock(&area->lock);
    if (both)
        pthread_mutex_lock(&area->second);
    return 0;
}

static void *wait_for_it(void *arg)
{
    int r = pthread_mutex_lock(&area->lock);
    (void)arg;
    if (r == EOWNERDEAD)
        pthread_mutex_consistent(&area->lock);
    pthread_mutex_unlock(&area->lock);
    return (void *)(intptr_t)r;
}

static void nap(int ms)
{
    struct timespec t = {0, ms * 1000000L};
    nanosleep(&t, 0);
}

static void in_threads(void)
{
    pthread_t t, w[3];
    void *got;
    pthread_create(&t, 0, die_with_it, (void *)1);
    pthread_join(t, 0);
    show("after the thread's end", 0);
    show("trylock", pthread_mutex_trylock(&area->lock));
    show("consistent", pthread_mutex_consistent(&area->lock));
    show("unlock", pthread_mutex_unlock(&area->lock));
    show("lock again", pthread_mutex_lock(&area->lock));
    show("unlock again", pthread_mutex_unlock(&area->lock));
    printf("second %s\n", strerrorname_np(pthread_mutex_lock(&area->second)));
    pthread_mutex_unlock(&area->second); /* not made consistent */
    printf("not recoverable %s\n", strerrorname_np(pthread_mutex_lock(&area->second)));
    /* waiters, one of whom gets EOWNERDEAD */
    int died = 0;
    if (fork() == 0) {
        pthread_mutex_lock(&area->lock);
        pthread_barrier_wait(&area->ready);
        nap(100);
        _exit(0);
    }
    pthread_barrier_wait(&area->ready);
    for (int i = 0; i < 3; i++)
        pthread_create(&w[i], 0, wait_for_it, 0);
    for (int i = 0; i < 3; i++) {
        pthread_join(w[i], &got);
        died += (intptr_t)got == EOWNERDEAD;
    }
    wait(0);
    printf("waiters told of the death: %d\n", died);
    show("at last", 0);
}

static void child_ends(const char *how)
{
    int status;
    pid_t pid = fork();
    if (pid == 0) {
        pthread_mutex_lock(&area->lock);
        if (!strcmp(how, "exit"))
            _exit(3);
        if (!strcmp(how, "kill"))
            raise(SIGKILL);
        if (!strcmp(how, "fault"))
            *(volatile int *)8 = 1;
        if (!strcmp(how, "exec"))
            execl("/bin/true", "true", (char *)0);
        if (!strcmp(how, "thread exit")) {
            syscall(SYS_exit, 0);
        }
    }
    waitpid(pid, &status, 0);
    printf("%s: ", how);
    show("then", 0);
    show("lock", pthread_mutex_lock(&area->lock));
    pthread_mutex_consistent(&area->lock);
    show("unlock", pthread_mutex_unlock(&area->lock));
}

static void killed_while_waiting(void)
{
    /* a waiter that is killed must not keep the lock from the others */
    pid_t first, second;
    int status;
    pthread_mutex_lock(&area->lock);
    if ((first = fork()) == 0) {
        pthread_mutex_lock(&area->lock);
        _exit(1);
    }
    nap(50);
    if ((second = fork()) == 0) {
        int r = pthread_mutex_lock(&area->lock);
        pthread_mutex_unlock(&area->lock);
        _exit(r);
    }
    nap(50);
    kill(first, SIGKILL);
    waitpid(first, &status, 0);
    printf("killed by %d\n", WTERMSIG(status));
    pthread_mutex_unlock(&area->lock);
    waitpid(second, &status, 0);
    printf("the other one: %d\n", WEXITSTATUS(status));
    show("at last", 0);
}

/* the list itself, without the C library */
struct entry {
    struct robust_list list;
    uint32_t word;
};

static void by_hand(void)
{
    struct entry *e = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    struct robust_list_head *head = (void *)((char *)e + 2048);
    size_t size;
    void *old;
    printf("set with another size: %ld %s\n", syscall(SYS_set_robust_list, head, 12), strerrorname_np(errno));
    printf("get: %ld ", syscall(SYS_get_robust_list, 0, &old, &size));
    printf("size %zu\n", size);
    printf("get of nobody: %ld %s\n", syscall(SYS_get_robust_list, 999999999, &old, &size), strerrorname_np(errno));
    for (int kind = 0; kind < 6; kind++) {
        pid_t pid;
        memset(e, 0, 4096);
        head->futex_offset = offsetof(struct entry, word);
        if ((pid = fork()) == 0) {
            uint32_t tid = syscall(SYS_gettid);
            e[0].word = tid | FUTEX_WAITERS;
            e[1].word = kind == 1 ? 1 : tid;       /* 1: somebody else's, goes on */
            e[2].word = tid;
            e[3].word = tid;
            head->list.next = &e[0].list;
            e[0].list.next = &e[1].list;
            e[1].list.next = kind == 2 ? (void *)8 : &e[2].list; /* 2: leads nowhere */
            e[2].list.next = kind == 3 ? &e[0].list : (void *)&head->list; /* 3: a ring without the head */
            if (kind == 4)
                head->list_op_pending = &e[3].list;
            if (kind == 5)
                head->futex_offset += 1; /* not aligned */
            syscall(SYS_set_robust_list, head, sizeof *head);
            _exit(0);
        }
        wait(0);
        printf("kind %d:", kind);
        for (int i = 0; i < 4; i++)
            printf(" %x", e[i].word & ~FUTEX_TID_MASK);
        printf(" %s\n", e[1].word & FUTEX_TID_MASK ? "kept" : "gone");
    }
}

int main(void)
{
    pthread_barrierattr_t b;
    setvbuf(stdout, 0, _IOLBF, 0);
    area = mmap(0, sizeof *area, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pthread_barrierattr_init(&b);
    pthread_barrierattr_setpshared(&b, PTHREAD_PROCESS_SHARED);
    pthread_barrier_init(&area->ready, &b, 2);
    int protocols[] = {PTHREAD_PRIO_NONE, PTHREAD_PRIO_INHERIT};
    int types[] = {PTHREAD_MUTEX_NORMAL, PTHREAD_MUTEX_ERRORCHECK};
    for (int p = 0; p < 2; p++)
        for (int t = 0; t < 2; t++) {
            printf("== protocol %d, type %d\n", p, t);
            make(&area->lock, protocols[p], types[t]);
            make(&area->second, protocols[p], types[t]);
            in_threads();
            child_ends("exit");
            child_ends("kill");
            child_ends("fault");
            child_ends("exec");
            child_ends("thread exit");
            killed_while_waiting();
        }
    by_hand();
    return 0;
}

/* Locks with priority inheritance, condition variables moved to them, and the newer futex calls, without the C library. */
#define _GNU_SOURCE
#include "asleep.h"
#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static uint32_t *words; /* shared with child processes */

static long sys(uint32_t *word, int op, uint32_t value, const struct timespec *t, uint32_t *other, uint32_t value3)
{
    long r = syscall(SYS_futex, word, op, value, t, other, value3);
    return r < 0 ? -errno : r;
}

static long count(uint32_t *word, int op, uint32_t value, unsigned long second, uint32_t *other, uint32_t value3)
{
    return sys(word, op, value, (struct timespec *)second, other, value3);
}

static const char *name(long r)
{
    static char text[24];
    if (r < 0)
        return strerrorname_np(-r);
    snprintf(text, sizeof text, "%ld", r);
    return text;
}

static uint32_t me(void) { return syscall(SYS_gettid); }

static void show(const char *what, long r, uint32_t *word)
{
    uint32_t w = *word, owner = w & FUTEX_TID_MASK;
    printf("%s: %s [%s%s%s]\n", what, name(r), w & FUTEX_WAITERS ? "waiters " : "", w & FUTEX_OWNER_DIED ? "died " : "",
           !owner ? "free" : owner == me() ? "mine" : "other's");
}

static void nap(int ms)
{
    struct timespec t = {0, ms * 1000000L};
    nanosleep(&t, 0);
}

/* The threads that are about to wait, by their numbers. */
static _Atomic uint32_t waiting[4];
static _Atomic int begun;
static void about_to_wait(void) { waiting[begun++] = me(); }

static void nobody_waits(void)
{
    begun = 0;
    for (int i = 0; i < 4; i++)
        waiting[i] = 0;
}

static void all_asleep(int count)
{
    for (int i = 0; i < count; i++) {
        while (!waiting[i])
            nap(1);
        thread_asleep(waiting[i]);
    }
    nobody_waits();
}

static struct timespec soon(clockid_t clock, int ms)
{
    struct timespec t;
    clock_gettime(clock, &t);
    t.tv_nsec += ms * 1000000L;
    t.tv_sec += t.tv_nsec / 1000000000;
    t.tv_nsec %= 1000000000;
    return t;
}

static void alone(void)
{
    uint32_t w = 0;
    show("lock", sys(&w, FUTEX_LOCK_PI, 0, 0, 0, 0), &w);
    show("lock twice", sys(&w, FUTEX_LOCK_PI, 0, 0, 0, 0), &w);
    show("try what I have", sys(&w, FUTEX_TRYLOCK_PI, 0, 0, 0, 0), &w);
    show("unlock", sys(&w, FUTEX_UNLOCK_PI, 0, 0, 0, 0), &w);
    show("unlock twice", sys(&w, FUTEX_UNLOCK_PI, 0, 0, 0, 0), &w);
    show("try", sys(&w, FUTEX_TRYLOCK_PI_PRIVATE, 0, 0, 0, 0), &w);
    show("unlock", sys(&w, FUTEX_UNLOCK_PI_PRIVATE, 0, 0, 0, 0), &w);
    w = FUTEX_OWNER_DIED | FUTEX_WAITERS;
    show("of a dead one", sys(&w, FUTEX_LOCK_PI, 0, 0, 0, 0), &w);
    w = 4194303; /* nobody */
    show("of nobody", sys(&w, FUTEX_LOCK_PI, 0, 0, 0, 0), &w);
    printf("left as %x\n", w);
    w = 1;
    show("unlock another's", sys(&w, FUTEX_UNLOCK_PI, 0, 0, 0, 0), &w);
    printf("not aligned: %s\n", name(sys((uint32_t *)((char *)words + 1), FUTEX_LOCK_PI, 0, 0, 0, 0)));
    printf("nowhere: %s\n", name(sys((uint32_t *)64, FUTEX_LOCK_PI, 0, 0, 0, 0)));
    printf("nowhere: %s\n", name(sys((uint32_t *)64, FUTEX_UNLOCK_PI, 0, 0, 0, 0)));
    printf("a bad time: %s\n", name(sys(&w, FUTEX_LOCK_PI, 0, &(struct timespec){0, -1}, 0, 0)));
    printf("realtime with LOCK_PI: %s\n", name(sys(&w, FUTEX_LOCK_PI | FUTEX_CLOCK_REALTIME, 0, 0, 0, 0)));
    printf("command 14: %s\n", name(sys(&w, 14, 0, 0, 0, 0)));
}

static void *take_and_give(void *word)
{
    about_to_wait();
    long r = sys(word, FUTEX_LOCK_PI, 0, 0, 0, 0);
    uint32_t mine = *(volatile uint32_t *)word & FUTEX_TID_MASK;
    nap(10);
    if (r == 0 && mine == me())
        r = sys(word, FUTEX_UNLOCK_PI, 0, 0, 0, 0);
    else
        r = -1000;
    return (void *)r;
}

static void with_others(void)
{
    uint32_t *w = words;
    pthread_t t[4];
    void *r;
    struct timespec later;
    *w = me();
    for (int i = 0; i < 4; i++)
        pthread_create(&t[i], 0, take_and_give, w);
    all_asleep(4);
    show("four wait", 0, w);
    printf("a plain wake: %s\n", name(sys(w, FUTEX_WAKE, 1, 0, 0, 0)));
    printf("a plain wait: %s\n", name(sys(w, FUTEX_WAIT, 0, 0, 0, 0)));
    show("unlock", sys(w, FUTEX_UNLOCK_PI, 0, 0, 0, 0), w);
    for (int i = 0; i < 4; i++) {
        pthread_join(t[i], &r);
        printf("took and gave: %s\n", name((long)r));
    }
    *w &= ~FUTEX_WAITERS;
    show("nobody waits", 0, w);
    volatile uint32_t *ready = words + 1;
    pid_t parent = getpid(), pid = fork();
    if (pid == 0) {
        sys(w, FUTEX_LOCK_PI, 0, 0, 0, 0);
        while (!*ready)
            nap(1);
        asleep(parent);
        _exit(sys(w, FUTEX_UNLOCK_PI, 0, 0, 0, 0));
    }
    while (!*(volatile uint32_t *)w)
        nap(1);
    show("another process has it: try", sys(w, FUTEX_TRYLOCK_PI, 0, 0, 0, 0), w);
    later = soon(CLOCK_REALTIME, 20);
    show("until soon", sys(w, FUTEX_LOCK_PI, 0, &later, 0, 0), w);
    later = soon(CLOCK_MONOTONIC, 20);
    show("until soon, steady clock", sys(w, FUTEX_LOCK_PI2, 0, &later, 0, 0), w);
    *ready = 1;
    show("wait", sys(w, FUTEX_LOCK_PI, 0, 0, 0, 0), w);
    show("unlock", sys(w, FUTEX_UNLOCK_PI, 0, 0, 0, 0), w);
    wait(0);
    *w = *ready = 0;
    if ((pid = fork()) == 0) { /* dies with it, without a robust list */
        syscall(SYS_set_robust_list, 0, 24);
        sys(w, FUTEX_LOCK_PI, 0, 0, 0, 0);
        while (!*ready)
            nap(1);
        asleep(parent);
        _exit(0);
    }
    while (!*(volatile uint32_t *)w)
        nap(1);
    *ready = 1;
    show("its owner dies", sys(w, FUTEX_LOCK_PI, 0, 0, 0, 0), w);
    show("unlock", sys(w, FUTEX_UNLOCK_PI, 0, 0, 0, 0), w);
    wait(0);
}

static void *other_way(void *arg)
{
    uint32_t *pair = arg;
    long first = sys(&pair[1], FUTEX_LOCK_PI_PRIVATE, 0, 0, 0, 0);
    about_to_wait();
    long r = sys(&pair[0], FUTEX_LOCK_PI_PRIVATE, 0, 0, 0, 0);
    sys(&pair[0], FUTEX_UNLOCK_PI_PRIVATE, 0, 0, 0, 0);
    sys(&pair[1], FUTEX_UNLOCK_PI_PRIVATE, 0, 0, 0, 0);
    return (void *)(first ? first : r);
}

static void deadlock(void)
{
    static uint32_t pair[2];
    pthread_t t;
    void *r;
    sys(&pair[0], FUTEX_LOCK_PI_PRIVATE, 0, 0, 0, 0);
    pthread_create(&t, 0, other_way, pair);
    all_asleep(1);
    show("the other way round", sys(&pair[1], FUTEX_LOCK_PI_PRIVATE, 0, 0, 0, 0), &pair[1]);
    sys(&pair[0], FUTEX_UNLOCK_PI_PRIVATE, 0, 0, 0, 0);
    pthread_join(t, &r);
    printf("the other: %s\n", name((long)r));
}

static uint32_t condition, lock;

static void *wait_requeue(void *timed)
{
    struct timespec later = soon(CLOCK_MONOTONIC, timed ? *(int *)timed : 0);
    about_to_wait();
    long r = sys(&condition, FUTEX_WAIT_REQUEUE_PI_PRIVATE, 0, timed ? &later : 0, &lock, 0);
    if (r == 0) {
        r = (lock & FUTEX_TID_MASK) == me() ? 0 : -1000;
        nap(5);
        if (sys(&lock, FUTEX_UNLOCK_PI_PRIVATE, 0, 0, 0, 0))
            r = -1001;
    }
    return (void *)r;
}

static void requeue(void)
{
    pthread_t t[3];
    void *r;
    uint32_t elsewhere = 0;
    for (int held = 0; held < 2; held++) {
        lock = 0;
        if (held)
            sys(&lock, FUTEX_LOCK_PI_PRIVATE, 0, 0, 0, 0);
        for (int i = 0; i < 3; i++)
            pthread_create(&t[i], 0, wait_requeue, 0);
        all_asleep(3);
        printf("wake: %s\n", name(sys(&condition, FUTEX_WAKE_PRIVATE, 1, 0, 0, 0)));
        printf("requeue plainly: %s\n", name(count(&condition, FUTEX_CMP_REQUEUE_PRIVATE, 1, 1, &elsewhere, 0)));
        printf("wrong value: %s\n", name(count(&condition, FUTEX_CMP_REQUEUE_PI_PRIVATE, 1, 1, &lock, 5)));
        printf("wrong lock: %s\n", name(count(&condition, FUTEX_CMP_REQUEUE_PI_PRIVATE, 1, 1, &elsewhere, 0)));
        printf("wake two: %s\n", name(count(&condition, FUTEX_CMP_REQUEUE_PI_PRIVATE, 2, 1, &lock, 0)));
        printf("same word: %s\n", name(count(&condition, FUTEX_CMP_REQUEUE_PI_PRIVATE, 1, 1, &condition, 0)));
        printf("one: %s\n", name(count(&condition, FUTEX_CMP_REQUEUE_PI_PRIVATE, 1, 0, &lock, 0)));
        nap(50);
        printf("all: %s\n", name(count(&condition, FUTEX_CMP_REQUEUE_PI_PRIVATE, 1, 100, &lock, 0)));
        printf("none left: %s\n", name(count(&condition, FUTEX_CMP_REQUEUE_PI_PRIVATE, 1, 100, &lock, 0)));
        if (held)
            show("unlock", sys(&lock, FUTEX_UNLOCK_PI_PRIVATE, 0, 0, 0, 0) , &elsewhere);
        for (int i = 0; i < 3; i++) {
            pthread_join(t[i], &r);
            printf("waiter: %s\n", name((long)r));
        }
    }
    int brief = 60, long_enough = 1000; /* ms */
    pthread_create(&t[0], 0, wait_requeue, &brief);
    pthread_join(t[0], &r);
    nobody_waits();
    printf("time-out before: %s\n", name((long)r));
    lock = 0;
    sys(&lock, FUTEX_LOCK_PI_PRIVATE, 0, 0, 0, 0);
    pthread_create(&t[0], 0, wait_requeue, &long_enough);
    all_asleep(1);
    printf("moved: %s\n", name(count(&condition, FUTEX_CMP_REQUEUE_PI_PRIVATE, 1, 0, &lock, 0)));
    pthread_join(t[0], &r);
    printf("time-out after: %s\n", name((long)r));
    printf("not the value: %s\n", name(sys(&condition, FUTEX_WAIT_REQUEUE_PI_PRIVATE, 7, 0, &lock, 0)));
}

/* the newer calls; numbers that old headers do not have */
static long waitv(struct futex_waitv *v, unsigned n, unsigned flags, struct timespec *t, clockid_t clock)
{
    long r = syscall(449, v, n, flags, t, clock);
    return r < 0 ? -errno : r;
}

static void *wake_third(void *arg)
{
    uint32_t *w = arg;
    asleep(getpid());
    return (void *)(long)syscall(454, &w[2], 0xffffffffUL, 1, 2);
}

static void several(void)
{
    struct futex_waitv v[3];
    struct timespec later = soon(CLOCK_MONOTONIC, 20), wall = soon(CLOCK_REALTIME, 20);
    pthread_t t;
    memset(v, 0, sizeof v);
    memset(words, 0, 64);
    for (int i = 0; i < 3; i++)
        v[i] = (struct futex_waitv){.uaddr = (uintptr_t)&words[i], .flags = FUTEX_32};
    printf("time-out: %s\n", name(waitv(v, 3, 0, &later, CLOCK_MONOTONIC)));
    printf("time-out: %s\n", name(waitv(v, 3, 0, &wall, CLOCK_REALTIME)));
    printf("clock: %s\n", name(waitv(v, 3, 0, &later, CLOCK_BOOTTIME)));
    printf("flags: %s\n", name(waitv(v, 3, 1, 0, 0)));
    printf("none: %s\n", name(waitv(v, 0, 0, 0, 0)));
    printf("129: %s\n", name(waitv(v, 129, 0, 0, 0)));
    v[1].__reserved = 1;
    printf("reserved: %s\n", name(waitv(v, 3, 0, 0, 0)));
    v[1].__reserved = 0, v[1].flags = 0;
    printf("size: %s\n", name(waitv(v, 3, 0, 0, 0)));
    v[1].flags = FUTEX_32, v[1].val = 3;
    printf("value: %s\n", name(waitv(v, 3, 0, 0, 0)));
    v[1].val = 0;
    pthread_create(&t, 0, wake_third, words);
    printf("woken: %s\n", name(waitv(v, 3, 0, 0, 0)));
    void *r;
    pthread_join(t, &r);
    printf("it woke %ld\n", (long)r);
    later = soon(CLOCK_MONOTONIC, 20);
    printf("wait: %s\n", syscall(455, words, 0UL, ~0UL >> 32, 2, &later, CLOCK_MONOTONIC) ? strerrorname_np(errno) : "0");
    printf("wait, other value: %s\n", syscall(455, words, 1UL, ~0UL >> 32, 2, 0, 0) ? strerrorname_np(errno) : "0");
    printf("wait, no mask: %s\n", syscall(455, words, 0UL, 0UL, 2, 0, 0) ? strerrorname_np(errno) : "0");
    printf("wait, wide mask: %s\n", syscall(455, words, 0UL, ~0UL, 2, 0, 0) ? strerrorname_np(errno) : "0");
    printf("wait, 8 bits: %s\n", syscall(455, words, 0UL, 1UL, 0, 0, 0) ? strerrorname_np(errno) : "0");
    printf("wake nobody: %ld\n", syscall(454, words, 1UL, 0, 2));
    printf("wake, flags: %s\n", syscall(454, words, 1UL, 0, 0x1002) < 0 ? strerrorname_np(errno) : "0");
    printf("requeue: %ld\n", syscall(456, v, 0, 1, 1));
    v[0].val = 9;
    printf("requeue, other value: %s\n", syscall(456, v, 0, 1, 1) < 0 ? strerrorname_np(errno) : "0");
    printf("requeue, flags: %s\n", syscall(456, v, 1, 1, 1) < 0 ? strerrorname_np(errno) : "0");
}

int main(void)
{
    setvbuf(stdout, 0, _IOLBF, 0);
    words = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    alone();
    with_others();
    deadlock();
    requeue();
    several();
    return 0;
}

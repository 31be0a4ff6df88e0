// Calls whose answer is known before they are made, each after what may make it another one. Prints no number that
// depends on the machine.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define ARCH_SET_FS 0x1002
#define ARCH_GET_FS 0x1003

static long call(long number, long a, long b, long c) {
    long result = syscall(number, a, b, c);
    return result < 0 ? -errno : result;
}

static void descriptors(const char *path) {
    char byte;
    int fd = open(path, O_RDONLY), again;
    read(fd, &byte, 1);
    long once = call(SYS_close, fd, 0, 0), twice = call(SYS_close, fd, 0, 0);
    printf("close %ld, again %ld, read %ld\n", once, twice, call(SYS_read, fd, (long)&byte, 1));
    again = open(path, O_RDONLY);
    printf("the same number: %d; a large one closed: %ld\n", again == fd, call(SYS_close, fd | 1L << 40, 0, 0));
    again = open(path, O_RDONLY);
    printf("duplicate %d", dup2(again, 77));
    printf(", closed %ld, the other still reads %zd\n", call(SYS_close, again, 0, 0), pread(77, &byte, 1, 0));
    close(77);

    int watch = inotify_init();
    inotify_add_watch(watch, path, IN_CLOSE);
    fd = open(path, O_RDONLY);
    close(fd);
    struct inotify_event event;
    ssize_t length = read(watch, &event, sizeof event);
    printf("inotify: %zd bytes, mask %#x\n", length, event.mask);
    close(watch);

    fd = open(path, O_RDONLY);
    flock(fd, LOCK_EX);
    fcntl(fd, F_GETFD);
    close(fd);
    fd = open(path, O_RDONLY);
    printf("locked by nobody: %d\n", flock(fd, LOCK_EX | LOCK_NB));
    close(fd);
    fd = open(path, O_RDONLY);
    close(fd);
    printf("mmap of a closed one: %d", mmap(0, 4096, PROT_READ, MAP_PRIVATE, fd, 0) == MAP_FAILED ? errno : 0);
    fd = open(path, O_RDONLY);
    pid_t child = vfork();
    if (!child)
        _exit(call(SYS_close, fd, 0, 0));
    int status;
    waitpid(child, &status, 0);
    once = call(SYS_close, fd, 0, 0), twice = call(SYS_close, fd, 0, 0);
    printf(", after a child closed it %#x: %ld %ld\n", status, once, twice);
}

static void ends(void) {
    long first = call(SYS_brk, 0, 0, 0), second = call(SYS_brk, first + 8192, 0, 0), third = call(SYS_brk, 0, 0, 0);
    printf("break: moved %ld, seen %ld, back %ld\n", second - first, third - first, call(SYS_brk, first, 0, 0) - first);
    printf("break after all: %ld\n", call(SYS_brk, 0, 0, 0) - first);
}

static void thread_words(void) {
    void *head = 0;
    size_t size = 0;
    static long list[3];
    long wrong = call(SYS_set_robust_list, (long)list, 23, 0), right = call(SYS_set_robust_list, (long)list, 24, 0);
    printf("robust list: %ld %ld", wrong, right);
    syscall(SYS_get_robust_list, 0, &head, &size);
    printf(", there: %d %zu\n", head == list, size);
    long base = 0, other = 0;
    syscall(SYS_arch_prctl, ARCH_GET_FS, &base);
    long high = call(SYS_arch_prctl, ARCH_SET_FS, 1L << 47, 0), last = call(SYS_arch_prctl, ARCH_SET_FS, (1L << 47) - 4096, 0);
    long same = call(SYS_arch_prctl, ARCH_SET_FS, base, 0);
    syscall(SYS_arch_prctl, ARCH_GET_FS, &other);
    printf("FS: %ld %ld %ld, there: %d\n", high, last, same, base == other);
}

static int cleared = 7;

static void *thread(void *pid) {
    long tid = call(SYS_gettid, 0, 0, 0);
    printf("thread: its process %d, itself %d", call(SYS_getpid, 0, 0, 0) == (long)pid, tid != (long)pid);
    printf(", again %d\n", call(SYS_gettid, 0, 0, 0) == tid);
    return 0;
}

static void who(void) {
    long pid = call(SYS_getpid, 0, 0, 0);
    int pipes[2], status;
    pipe(pipes);
    pid_t child = fork();
    if (!child) {
        long numbers[4] = {call(SYS_getpid, 0, 0, 0), call(SYS_gettid, 0, 0, 0), call(SYS_getpid, 0, 0, 0), call(SYS_set_tid_address, (long)&cleared, 0, 0)};
        write(pipes[1], numbers, sizeof numbers);
        _exit(0);
    }
    long numbers[4] = {0};
    read(pipes[0], numbers, sizeof numbers);
    waitpid(child, &status, 0);
    printf("child:");
    for (int i = 0; i < 4; i++)
        printf(" %d", numbers[i] == child);
    printf("; myself %d %d\n", call(SYS_getpid, 0, 0, 0) == pid, call(SYS_gettid, 0, 0, 0) == pid);
    pthread_t other;
    pthread_create(&other, 0, thread, (void *)pid);
    pthread_join(other, 0);
}

// Everything but RAX, RCX and R11 is as it was, the flags included.
static void registers(long number) {
    unsigned long before, after, rdi = 0, rsi = 24, rdx = 3, result = number;
    register unsigned long r10 __asm__("r10") = 4;
    __asm__ volatile("stc; pushfq; popq %0; syscall; pushfq; popq %1"
                     : "=&r"(before), "=&r"(after), "+a"(result), "+D"(rdi), "+S"(rsi), "+d"(rdx), "+r"(r10)::"rcx", "r11", "memory");
    printf("call %ld: flags %#lx, %lu %lu %lu %lu\n", number, before ^ after, rdi, rsi, rdx, r10);
}

int main(int count, char **arguments) {
    setvbuf(stdout, 0, _IOLBF, 1 << 16);
    for (int round = 0; round < 2; round++) {
        registers(SYS_getpid), registers(SYS_brk), registers(SYS_set_robust_list), registers(SYS_gettid);
        thread_words();
        ends();
        who();
        descriptors("/etc/passwd");
    }
    if (count == 1) {
        fflush(stdout);
        execl(arguments[0], arguments[0], "again", NULL);
    }
}

// reads SCRATCH-FILE: reads a file of 5 MB in order and does, between the reads, what could go wrong
// where reads are answered ahead. Prints what read(2) gave, as sums. Changes the file at the end.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PART = 4096, STREAM = 40 };

static char *name;
static unsigned char buffer[1 << 20];

static unsigned sum(const unsigned char *at, long size) {
    unsigned value = 1;
    for (long i = 0; i < size; i++) value = value * 31 + at[i];
    return value;
}

static void show(const char *what, long got) {
    printf("%s %ld", what, got);
    if (got > 0) printf(" %08x", sum(buffer, got));
    else if (got < 0) printf(" %s", strerrorname_np(errno));
    printf("\n");
}

// `times` reads of `part` bytes, so that the next ones may be answered ahead.
static void stream(int fd, int times, int part) {
    unsigned all = 0;
    for (int i = 0; i < times; i++) {
        long got = read(fd, buffer, part);
        if (got != part) show("short", got);
        all = all * 31 + sum(buffer, got > 0 ? got : 0);
    }
    printf("%d x %d: %08x, at %ld\n", times, part, all, (long)lseek(fd, 0, SEEK_CUR));
}

static int opened(int flags) {
    int fd = open(name, flags);
    if (fd < 0) abort();
    return fd;
}

static void whole_file(void) {
    for (int part = 1000; part < 300000; part *= 3) {
        int fd = opened(O_RDONLY);
        unsigned all = 0;
        long got, total = 0;
        while ((got = read(fd, buffer, part)) > 0) all = all * 31 + sum(buffer, got), total += got;
        printf("whole %ld %08x, then %zd\n", total, all, read(fd, buffer, part));
        close(fd);
    }
}

static void sizes_that_change(void) {
    int fd = opened(O_RDONLY);
    stream(fd, STREAM, PART);
    for (int size = 0; size < 30; size++) {
        memset(buffer, 'x', 64);
        show("size", read(fd, buffer, size * 7));
        printf("behind %c\n", buffer[size * 7]);
        if (size % 10 == 9) stream(fd, STREAM, PART);
    }
    close(fd);
}

static void other_descriptors(void) {
    int fd = opened(O_RDONLY);
    stream(fd, STREAM, PART);
    int copy = dup(fd);
    show("dup", read(copy, buffer, 5000));
    stream(fd, STREAM, PART);
    lseek(copy, 12345, SEEK_SET);
    stream(fd, STREAM, PART);
    show("pread", pread(fd, buffer, 999, 77));
    stream(fd, 3, PART);
    struct iovec parts[2] = {{buffer, 100}, {buffer + 100, 200}};
    show("readv", readv(fd, parts, 2));
    stream(fd, STREAM, PART);
    int other = open("/dev/zero", O_RDONLY);
    dup2(other, fd);
    show("replaced", read(fd, buffer, PART));
    dup2(copy, fd);
    stream(fd, STREAM, PART);
    close(fd);
    show("closed", read(fd, buffer, PART));
    show("reopened", read(opened(O_RDONLY), buffer, PART));
    close(fd), close(copy), close(other);
    fd = opened(O_WRONLY);
    show("not readable", read(fd, buffer, PART));
    close(fd);
}

static void bad_buffers(void) {
    int fd = opened(O_RDONLY);
    unsigned char *area = mmap(NULL, 16 * PART, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    munmap(area + 8 * PART, 8 * PART);
    stream(fd, STREAM, PART);
    show("into fresh pages", read(fd, area, PART));
    printf("%08x\n", sum(area, PART));
    show("into nothing", read(fd, area + 9 * PART, PART));
    show("over the end", read(fd, area + 7 * PART + 1000, PART));
    printf("%08x\n", sum(area + 7 * PART + 1000, PART - 1000));
    stream(fd, STREAM, PART);
    mprotect(area, PART, PROT_READ);
    show("read-only", read(fd, area, PART));
    show("into the kernel", read(fd, (void *)0xffffff8000010000, PART));
    show("and beyond", read(fd, (void *)-100, PART));
    stream(fd, STREAM, PART);
    show("nothing", read(fd, NULL, 0));
    show("all", read(fd, buffer, -1ul) > 1000000);
    close(fd);
}

static void changed_files(void) {
    int fd = opened(O_RDONLY), writer = opened(O_WRONLY);
    stream(fd, STREAM, PART);
    pwrite(writer, "CHANGED", 7, STREAM * PART + 10);
    stream(fd, STREAM, PART);
    unsigned char *map = mmap(NULL, 4 << 20, PROT_READ | PROT_WRITE, MAP_SHARED, opened(O_RDWR), 0);
    stream(fd, STREAM, PART);
    memset(map + 3 * STREAM * PART, 'm', 100);
    stream(fd, STREAM, PART);
    memset(map + 4 * STREAM * PART, 'm', 100);
    stream(fd, 2, PART);
    munmap(map, 4 << 20);
    ftruncate(writer, lseek(fd, 0, SEEK_CUR) + 3 * PART + 50);
    for (int i = 0; i < 5; i++) show("truncated", read(fd, buffer, PART));
    write(writer, "start", 5);
    ftruncate(writer, 1000000);
    for (int i = 0; i < 5; i++) show("longer", read(fd, buffer, PART));
    close(fd), close(writer);
}

static void children(void) {
    int fd = opened(O_RDONLY);
    stream(fd, STREAM, PART);
    fflush(stdout);
    if (!fork()) {
        stream(fd, STREAM, PART);
        fflush(stdout);
        _exit(0);
    }
    wait(NULL);
    stream(fd, STREAM, PART);
    if (!vfork()) {
        for (int i = 0; i < 7; i++) read(fd, buffer, PART);
        close(fd);
        _exit(0);
    }
    stream(fd, STREAM, PART);
    close(fd);
}

static volatile sig_atomic_t ticks, strange;

static void on_tick(int number, siginfo_t *info, void *context) {
    ticks++;
    strange += (uint64_t)((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP] >> 47 != 0;
    strange += !(((ucontext_t *)context)->uc_mcontext.gregs[REG_EFL] & 0x200);
}

static void signals(void) {
    struct sigaction action = {.sa_sigaction = on_tick, .sa_flags = SA_SIGINFO | SA_RESTART};
    struct itimerval often = {{0, 1000}, {0, 1000}}, never = {};
    sigaction(SIGALRM, &action, NULL);
    setitimer(ITIMER_REAL, &often, NULL);
    unsigned all = 0;
    long total = 0, got, rounds = 0;
    while (ticks < 40) {
        int fd = opened(O_RDONLY);
        unsigned here = 0;
        for (total = 0; (got = read(fd, buffer, PART)) > 0; total += got) here = here * 31 + buffer[0] + buffer[got - 1];
        if (rounds++ && here != all) printf("different\n");
        all = here;
        close(fd);
    }
    setitimer(ITIMER_REAL, &never, NULL);
    printf("%ld %08x strange %d\n", total, all, strange);
}

static _Atomic long both;

static void *reader(void *fd) {
    static __thread unsigned char mine[PART];
    long got;
    while ((got = read(*(int *)fd, mine, PART)) > 0) both += sum(mine, got);
    return NULL;
}

static void threads(void) {
    pthread_t one, two;
    int fd = opened(O_RDONLY);
    pthread_create(&one, NULL, reader, &fd);
    pthread_create(&two, NULL, reader, &fd);
    pthread_join(one, NULL), pthread_join(two, NULL);
    printf("threads %lx\n", both);
    close(fd);
}

// What a system call leaves alone: registers, flags, the red zone, the vector registers. Behind it RCX is where the
// program goes on, and R11 its flags.
static void registers(void) {
    int fd = opened(O_RDONLY);
    stream(fd, STREAM, PART);
    for (int i = 0; i < 6; i++) {
        uint64_t after[16], flags, here, red;
        uint64_t set = 0x202 | (i & 1 ? 0x8d5 : 0) | (i == 5 ? 0x400 : 0);
        __asm__ volatile(
            "mov %[set], %%r8\n mov %[after], %%r9\n"
            "mov $0x1234567, %%r10\n mov $0x7654321, %%r12\n mov $11, %%r13\n mov $12, %%r14\n mov $13, %%rbx\n"
            "mov $0x5555, %%rax\n movq %%rax, %%xmm3\n movq %%rax, %%xmm15\n"
            "movq $0x77, -8(%%rsp)\n movq $0x78, -128(%%rsp)\n"
            "push %%r8\n popf\n movq $0x79, -16(%%rsp)\n"
            "mov $0, %%eax\n syscall\n 1:\n"
            "mov %%rax, (%%r9)\n mov %%rcx, 8(%%r9)\n mov %%r11, 16(%%r9)\n"
            "pushf\n popq 24(%%r9)\n push $0x202\n popf\n"
            "mov %%rdi, 32(%%r9)\n mov %%rsi, 40(%%r9)\n mov %%rdx, 48(%%r9)\n mov %%r10, 56(%%r9)\n mov %%r12, 64(%%r9)\n"
            "mov %%r13, 72(%%r9)\n mov %%r14, 80(%%r9)\n mov %%rbx, 88(%%r9)\n movq %%xmm3, %%rax\n mov %%rax, 96(%%r9)\n"
            "movq %%xmm15, %%rax\n mov %%rax, 104(%%r9)\n mov %%r8, 112(%%r9)\n"
            "lea 1b(%%rip), %%rax\n mov %%rax, %[here]\n"
            : [here] "=&m"(here)
            : "D"((uint64_t)fd), "S"(buffer), "d"((uint64_t)PART), [set] "r"(set), [after] "r"(after)
            : "rax", "rcx", "rbx", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "xmm3", "xmm15", "memory", "cc");
        printf("%lu %d %lx %lx:", after[0], after[1] == here, after[2], after[3]);
        for (int k = 4; k < 15; k++) printf(" %lx", k == 5 ? after[k] == (uint64_t)buffer : after[k]);
        printf("\n");
    }
    close(fd);
}

static sigjmp_buf out;
static volatile uint64_t where;

static void on_fault(int number, siginfo_t *info, void *context) {
    where = (uint64_t)((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP];
    siglongjmp(out, info->si_signo);
}

// Nothing in the kernel's half can be called. (The offsets are those of the half of a core that answers reads.)
static void jumps(void) {
    int fd = opened(O_RDONLY);
    struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_NODEFER};
    sigaction(SIGSEGV, &action, NULL);
    stream(fd, STREAM, PART);
    static const int offsets[] = {0, 0xf0, 0x100, 0x135, 0x1000, 0x10000, 0x11000};
    for (int i = 0; i < 7; i++) {
        uint64_t target = 0xffffff8000000000 + offsets[i];
        int signal = sigsetjmp(out, 1);
        if (!signal) {
            stream(fd, 4, PART);
            __asm__ volatile("xor %%ecx, %%ecx\n xor %%edx, %%edx\n mov $39, %%eax\n jmp *%0" : : "r"(target) : "rcx", "rdx", "rax");
        }
        printf("%d\n", signal);
    }
    stream(fd, STREAM, PART);
    close(fd);
}

int main(int count, char **words) {
    name = words[1];
    setvbuf(stdout, NULL, _IOFBF, 1 << 16);
    whole_file();
    sizes_that_change();
    other_descriptors();
    bad_buffers();
    children();
    registers();
    threads();
    signals();
    jumps();
    changed_files();
    return 0;
}

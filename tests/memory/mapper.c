/* Performs mapping operations read from standard input and prints what the kernel made of each.
 *
 * A line in is an operation's name and numbers; a line out is its result (or -errno), followed by whatever it shows.
 * Runs without address-space randomization and with a stack limit of 8 MiB, whatever it is started with. Files named on
 * the command line are open from descriptor 3 on. Nothing here allocates memory: the maps are those of the operations.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/personality.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

static sigjmp_buf escape;
static char input[1 << 20], chunk[1 << 16];
static unsigned char residency[1 << 16];

static void caught(int signal, siginfo_t *info, void *context) { siglongjmp(escape, signal); }

static void put(const char *text, size_t length) {
    while (length) {
        ssize_t done = write(1, text, length);
        if (done <= 0) _exit(3);
        text += done, length -= done;
    }
}

static void show_file(const char *path) {
    int fd = open(path, O_RDONLY);
    ssize_t got;
    while ((got = read(fd, chunk, sizeof chunk)) > 0) put(chunk, got);
    close(fd);
    put(".\n", 2);
}

static long faults(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_minflt + usage.ru_majflt;
}

/* The byte at the address, after writing it if there is something to write, and how many page faults that took. */
static void touch(unsigned long address, long value) {
    volatile unsigned char *byte = (void *)address;
    long before = faults();
    int signal = sigsetjmp(escape, 1);
    if (signal) {
        put(chunk, snprintf(chunk, sizeof chunk, "signal %d\n", signal));
        return;
    }
    if (value >= 0) *byte = value;
    int now = *byte;
    put(chunk, snprintf(chunk, sizeof chunk, "%d %ld\n", now, faults() - before));
}

static long call(const char *name, unsigned long *a) {
    static const struct { const char *name; long number; } calls[] = {
        {"mmap", SYS_mmap}, {"munmap", SYS_munmap}, {"mprotect", SYS_mprotect}, {"mremap", SYS_mremap}, {"brk", SYS_brk},
        {"madvise", SYS_madvise}, {"msync", SYS_msync}, {"mlock", SYS_mlock}, {"munlock", SYS_munlock},
        {"mlock2", SYS_mlock2}, {"mlockall", SYS_mlockall}, {"munlockall", SYS_munlockall},
    };
    if (!strcmp(name, "rlimit")) {
        struct rlimit limit = {a[1], a[2]};
        return setrlimit(a[0], &limit) ? -errno : 0;
    }
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++)
        if (!strcmp(name, calls[i].name)) {
            long result = syscall(calls[i].number, a[0], a[1], a[2], a[3], a[4], a[5]);
            return result == -1 && errno ? -errno : result;
        }
    _exit(4);
}

static void show_residency(unsigned long *a) {
    long result = syscall(SYS_mincore, a[0], a[1], residency);
    int length = snprintf(chunk, sizeof chunk, "%ld ", result ? -(long)errno : 0);
    put(chunk, length);
    for (unsigned long i = 0; !result && i < (a[1] + 4095) / 4096; i++) put(residency[i] & 1 ? "1" : "0", 1);
    put("\n", 1);
}

static void show_pages(unsigned long *a) {
    int fd = open("/proc/self/pagemap", O_RDONLY);
    put("0 ", 2);
    for (unsigned long page = a[0] / 4096; page < (a[0] + a[1]) / 4096; page++) {
        unsigned long entry = 0;
        pread(fd, &entry, 8, page * 8);
        put(entry >> 63 ? "1" : "0", 1);
    }
    close(fd);
    put("\n", 1);
}

int main(int argc, char **argv) {
    struct rlimit stack = {8 << 20, 8 << 20};
    if (!(personality(0xffffffff) & ADDR_NO_RANDOMIZE) || getenv("MAPPER_AGAIN") == NULL) {
        personality(ADDR_NO_RANDOMIZE | (getenv("MAPPER_LEGACY") ? ADDR_COMPAT_LAYOUT : 0));
        stack.rlim_max = RLIM_INFINITY;
        if (setrlimit(RLIMIT_STACK, &stack)) stack.rlim_max = 8 << 20, setrlimit(RLIMIT_STACK, &stack);
        setenv("MAPPER_AGAIN", "1", 1);
        execv("/proc/self/exe", argv);
        _exit(5);
    }
    for (int i = 1; i < argc; i++) open(argv[i], O_RDWR);
    struct sigaction action = {.sa_sigaction = caught, .sa_flags = SA_SIGINFO};
    sigaction(SIGSEGV, &action, NULL);
    sigaction(SIGBUS, &action, NULL);
    faults();

    size_t length = 0;
    for (ssize_t got; (got = read(0, input + length, sizeof input - 1 - length)) > 0;) length += got;
    for (char *line = strtok(input, "\n"); line; line = strtok(NULL, "\n")) {
        char name[32];
        unsigned long a[6] = {0};
        int used = 0;
        sscanf(line, "%31s%n", name, &used);
        char *at = line + used;
        for (int i = 0; i < 6 && *at; i++) a[i] = strtoul(at, &at, 0); /* takes a minus sign too */
        if (!strcmp(name, "maps")) show_file("/proc/self/maps");
        else if (!strcmp(name, "stat")) show_file("/proc/self/stat");
        else if (!strcmp(name, "mincore")) show_residency(a);
        else if (!strcmp(name, "pagemap")) show_pages(a);
        else if (!strcmp(name, "read")) touch(a[0], -1);
        else if (!strcmp(name, "write")) touch(a[0], a[1]);
        else {
            errno = 0;
            long result = call(name, a);
            put(chunk, snprintf(chunk, sizeof chunk, "%ld\n", result));
        }
    }
    return 0;
}

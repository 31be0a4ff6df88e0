/* A compiler that makes its functions anew, again and again, in pages that are written one way and run another.

   argv[1] says which way, argv[2] how often. Printed are a sum over everything that the functions returned, and how often
   one that had just been made was the old one. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PAGE = 4096, SIZE = 2 * PAGE, FUNCTIONS = 8 };

typedef int (*function)(void);

static unsigned char *written, *run; /* where the functions are written, and where they are run */
static int fd = -1;

/* The functions lie apart, the last one across the pages' boundary. */
static size_t place(int n) { return n == FUNCTIONS - 1 ? PAGE - 3 : (size_t)n * 1000; }

static size_t encode(unsigned char *code, int value) {
    memcpy(code, "\xb8\0\0\0\0\xc3", 6); /* mov $value, %eax; ret */
    memcpy(code + 1, &value, 4);
    return 6;
}

static void store(int n, int value) {
    unsigned char code[6];
    memcpy(written + place(n), code, encode(code, value));
}

static void map_twice(int flags) {
    ftruncate(fd, SIZE);
    written = mmap(0, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | flags, fd, 0);
    run = mmap(0, SIZE, PROT_READ | PROT_EXEC, MAP_SHARED | flags, fd, 0);
}

static void in_memfd(void) { map_twice((fd = memfd_create("code", 0), 0)); }

static void in_file(void) {
    char name[] = "/tmp/codeXXXXXX";
    fd = mkstemp(name);
    unlink(name);
    map_twice(0);
}

static void in_segment(void) {
    int id = shmget(IPC_PRIVATE, SIZE, 0700);
    written = shmat(id, 0, 0);
    run = shmat(id, 0, SHM_EXEC | SHM_RDONLY);
    shmctl(id, IPC_RMID, 0);
}

static void in_duplicate(void) { /* mremap of nothing maps shared pages a second time */
    written = mmap(0, SIZE, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    run = mremap(written, 0, SIZE, MREMAP_MAYMOVE);
    mprotect(written, SIZE, PROT_READ | PROT_WRITE);
}

static void in_place(void) {
    written = run = mmap(0, SIZE, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

static void store_turned(int n, int value) { /* writable while it is written, executable while it runs */
    mprotect(run, SIZE, PROT_READ | PROT_WRITE);
    store(n, value);
    mprotect(run, SIZE, PROT_READ | PROT_EXEC);
}

static void store_all_turned(int n, int value) {
    static int values[FUNCTIONS];
    values[n] = value;
    mprotect(run, SIZE, PROT_READ | PROT_WRITE);
    for (int i = 0; i <= n; i++) store(i, values[i]);
    mprotect(run, SIZE, PROT_READ | PROT_EXEC);
}

static void store_by_read(int n, int value) {
    unsigned char code[6];
    int ends[2];
    pipe(ends);
    write(ends[1], code, encode(code, value));
    read(ends[0], written + place(n), sizeof code);
    close(ends[0]);
    close(ends[1]);
}

static void store_by_write(int n, int value) {
    unsigned char code[6];
    pwrite(fd, code, encode(code, value), place(n));
}

static void store_by_child(int n, int value) {
    if (fork() == 0) {
        store(n, value);
        _exit(0);
    }
    wait(0);
}

static void store_elsewhere(int n, int value) { /* at an address that is new each time */
    unsigned char *old = written;
    written = mmap(0, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    munmap(old, SIZE);
    store(n, value);
}

static void store_there_and_here(int n, int value) { /* at both of two addresses that may execute */
    unsigned char *other = written;
    if (n & 1) written = run;
    store(n, value);
    written = other;
}

static void in_two_executable(void) {
    fd = memfd_create("code", 0);
    ftruncate(fd, SIZE);
    written = mmap(0, SIZE, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_SHARED, fd, 0);
    run = mmap(0, SIZE, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_SHARED, fd, 0);
}

static const struct {
    const char *name;
    void (*map)(void);
    void (*store)(int, int);
} ways[] = {
    {"memfd", in_memfd, store},
    {"file", in_file, store},
    {"segment", in_segment, store},
    {"duplicate", in_duplicate, store},
    {"in-place", in_place, store},
    {"two-executable", in_two_executable, store_there_and_here},
    {"turned", in_place, store_turned},
    {"all-turned", in_place, store_all_turned},
    {"read", in_memfd, store_by_read},
    {"write", in_memfd, store_by_write},
    {"write-file", in_file, store_by_write},
    {"child", in_memfd, store_by_child},
    {"elsewhere", in_memfd, store_elsewhere},
};

int main(int argc, char **argv) {
    size_t way = 0;
    while (strcmp(argv[1], ways[way].name)) way++;
    ways[way].map();
    for (int n = 0; n < FUNCTIONS; n++) ways[way].store(n, n);
    unsigned sum = 0, old = 0;
    for (int round = 0; round < atoi(argv[2]); round++) {
        int n = round * 5 % FUNCTIONS;
        ways[way].store(n, round);
        for (int i = 0; i < FUNCTIONS; i++) sum = sum * 31 + ((function)(run + place(i)))();
        old += ((function)(run + place(n)))() != round;
    }
    printf("%u, %u old\n", sum, old);
    return 0;
}

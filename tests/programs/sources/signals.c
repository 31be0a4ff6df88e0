/* One bad deed, named by argv[1]; with "handle" as argv[2] a handler on its own stack reports it. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

static const char constant[] = "read only";
static char data[4096] = {0xc3};
static volatile int zero, sink;

static void report(int number, siginfo_t *info, void *context) {
    ucontext_t *machine = context;
    greg_t *registers = machine->uc_mcontext.gregs;
    char text[256];
    int length = snprintf(text, sizeof text, "signal %d errno %d code %d address %p\ntrap %lld error %llx cr2 %llx rip %llx\n",
                          info->si_signo, info->si_errno, info->si_code, info->si_addr,
                          registers[REG_TRAPNO], registers[REG_ERR],
                          registers[REG_TRAPNO] == 14 ? registers[REG_CR2] : 0, registers[REG_RIP]);
    write(1, text, length);
    _exit(40 + number);
}

static int overflow(int depth) {
    volatile char frame[1000];
    frame[depth % 1000] = (char)depth;
    return overflow(depth + 1) + frame[0];
}

int main(int argc, char **argv) {
    const char *deed = argv[1];
    if (argc > 2) {
        stack_t stack = {.ss_sp = mmap(NULL, 65536, 3, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), .ss_size = 65536};
        sigaltstack(&stack, NULL);
        struct sigaction action = {.sa_sigaction = report, .sa_flags = SA_SIGINFO | SA_ONSTACK};
        int all[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT, SIGSYS};
        for (unsigned i = 0; i < sizeof all / sizeof *all; i++) sigaction(all[i], &action, NULL);
    }
    printf("before %s\n", deed);
    fflush(stdout);
    if (!strcmp(deed, "null")) sink = *(volatile int *)0;
    else if (!strcmp(deed, "wild-read")) sink = *(volatile int *)0x123456789000;
    else if (!strcmp(deed, "wild-write")) *(volatile int *)0x123456789abc = 1;
    else if (!strcmp(deed, "kernel-address")) sink = *(volatile int *)0xffffffff81000000;
    else if (!strcmp(deed, "non-canonical")) sink = *(volatile int *)0x8000000000000000;
    else if (!strcmp(deed, "call-null")) ((void (*)(void))0)();
    else if (!strcmp(deed, "call-wild")) ((void (*)(void))0x123456789000)();
    else if (!strcmp(deed, "call-data")) ((void (*)(void))data)();
    else if (!strcmp(deed, "write-rodata")) *(volatile char *)constant = 'x';
    else if (!strcmp(deed, "write-text")) *(volatile char *)main = 'x';
    else if (!strcmp(deed, "stack-overflow")) sink = overflow(0);
    else if (!strcmp(deed, "below-stack")) { char *p = (char *)&argc; for (;;) sink = *(volatile char *)(p -= 4096); }
    else if (!strcmp(deed, "divide")) sink = 7 / zero;
    else if (!strcmp(deed, "divide-overflow")) sink = (-2147483647 - 1) / (zero - 1);
    else if (!strcmp(deed, "ud2")) __asm__ volatile("ud2");
    else if (!strcmp(deed, "bad-opcode")) __asm__ volatile(".byte 0x06");
    else if (!strcmp(deed, "int3")) __asm__ volatile("int3");
    else if (!strcmp(deed, "int1")) __asm__ volatile(".byte 0xf1");
    else if (!strcmp(deed, "int80-vector-5")) __asm__ volatile("int $5");
    else if (!strcmp(deed, "cli")) __asm__ volatile("cli");
    else if (!strcmp(deed, "hlt")) __asm__ volatile("hlt");
    else if (!strcmp(deed, "in")) __asm__ volatile("in $0x80, %%al" ::: "rax");
    else if (!strcmp(deed, "out")) __asm__ volatile("out %%al, $0x80" ::: "rax");
    else if (!strcmp(deed, "wrmsr")) __asm__ volatile("wrmsr" :: "a"(0), "c"(0x10), "d"(0));
    else if (!strcmp(deed, "rdmsr")) __asm__ volatile("rdmsr" :: "c"(0x10) : "rax", "rdx");
    else if (!strcmp(deed, "mov-cr3")) __asm__ volatile("mov %%cr3, %%rax" ::: "rax");
    else if (!strcmp(deed, "lgdt")) __asm__ volatile("lgdt %0" :: "m"(data));
    else if (!strcmp(deed, "invlpg")) __asm__ volatile("invlpg %0" :: "m"(data));
    else if (!strcmp(deed, "trap-flag")) __asm__ volatile("pushfq; orq $0x100, (%%rsp); popfq; nop" ::: "memory");
    else if (!strcmp(deed, "bad-stack")) __asm__ volatile("xor %%esp, %%esp; push %%rax" ::: "memory");
    else if (!strcmp(deed, "misaligned-sse")) __asm__ volatile("movaps 1(%0), %%xmm0" :: "r"(data) : "xmm0");
    else if (!strcmp(deed, "abort")) abort();
    else if (!strcmp(deed, "raise")) raise(SIGSEGV);
    else if (!strcmp(deed, "unmapped")) {
        volatile char *page = mmap(NULL, 8192, 3, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        *page = 1;
        munmap((void *)page, 8192);
        sink = *page;
    } else if (!strcmp(deed, "protected")) {
        volatile char *page = mmap(NULL, 8192, 3, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        page[4096] = 1;
        mprotect((void *)page, 8192, PROT_READ);
        sink = page[4096];
        page[4097] = 2;
    } else if (!strcmp(deed, "no-access")) {
        volatile char *page = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        sink = page[5];
    } else if (!strcmp(deed, "not-executable")) {
        char *page = mmap(NULL, 4096, 3, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        page[16] = (char)0xc3;
        ((void (*)(void))(page + 16))();
    } else if (!strcmp(deed, "truncated") || !strcmp(deed, "past-end") || !strcmp(deed, "truncated-private")) {
        int fd = open("mapped-file", O_RDWR | O_CREAT | O_TRUNC, 0600);
        ftruncate(fd, !strcmp(deed, "past-end") ? 100 : 16384);
        int how = !strcmp(deed, "truncated-private") ? MAP_PRIVATE : MAP_SHARED;
        volatile char *file = mmap(NULL, 16384, 3, how, fd, 0);
        if (strcmp(deed, "past-end")) { file[9000] = 1; ftruncate(fd, 100); }
        sink = file[50];
        sink = file[4000];
        sink = file[9001];
    } else if (!strcmp(deed, "write-straddles")) {
        char *page = mmap(NULL, 8192, 3, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        mprotect(page + 4096, 4096, PROT_READ);
        *(volatile long *)(page + 4092) = -1;
    }
    printf("after %s\n", deed);
    return 0;
}

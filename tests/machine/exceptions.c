/* Runs pieces of machine code, given in hexadecimal as arguments, and prints the signal in which each ends: its number,
   si_code, si_addr (relative to the code where it is in it), where RIP was, trap number and error code. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

static sigjmp_buf back;
static unsigned char *code;
static char alternate[65536];

static void show(const char *name, unsigned long value) {
    unsigned long offset = value - (unsigned long)code;
    if (offset < 4096)
        printf(" %s=code+%lu", name, offset);
    else
        printf(" %s=%#lx", name, value);
}

static void handler(int number, siginfo_t *info, void *state) {
    __asm__ volatile("pushfq; andl $~0x40000, (%%rsp); popfq" : : : "cc", "memory"); /* the kernel leaves AC as it is */
    greg_t *registers = ((ucontext_t *)state)->uc_mcontext.gregs;
    printf(" signal %d code %d", number, info->si_code);
    show("addr", (unsigned long)info->si_addr);
    show("rip", registers[REG_RIP]);
    printf(" trap %lld", registers[REG_TRAPNO]);
    if (registers[REG_TRAPNO] != 14)
        printf(" error %#llx", registers[REG_ERR]);
    putchar('\n');
    siglongjmp(back, 1);
}

int main(int argc, char **argv) {
    stack_t stack = {.ss_sp = alternate, .ss_size = sizeof alternate};
    struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    sigaltstack(&stack, NULL);
    for (int number = 1; number < 32; number++)
        if (number == SIGSEGV || number == SIGBUS || number == SIGILL || number == SIGTRAP || number == SIGFPE)
            sigaction(number, &action, NULL);
    code = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (int i = 1; i < argc; i++) {
        memset(code, 0x90, 4096);
        size_t size = strlen(argv[i]) / 2;
        for (size_t at = 0; at < size; at++)
            sscanf(argv[i] + 2 * at, "%2hhx", &code[at]);
        memcpy(code + size, "\x48\x31\xc0\xb0\xff\xc3", 6); /* xor rax, rax; mov al, 255; ret */
        printf("%s:", argv[i]);
        fflush(stdout);
        if (sigsetjmp(back, 1) == 0)
            printf(" returned %ld\n", ((long (*)(void))code)());
        fflush(stdout);
    }
    return 0;
}

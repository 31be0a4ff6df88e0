/* A program that sets the trap flag itself: where each step ends, and that system calls are made on the way. */
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <ucontext.h>

static unsigned long places[64];
static int steps;

static void note(int number, siginfo_t *info, void *context) {
    greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
    if (number != SIGTRAP || info->si_code != TRAP_TRACE)
        places[steps++] = 0;
    places[steps++] = registers[REG_RIP];
}

int main(void) {
    struct sigaction action = {.sa_sigaction = note, .sa_flags = SA_SIGINFO};
    long written, unknown, behind, flags;
    unsigned long start;
    sigaction(SIGTRAP, &action, 0);
    __asm__ volatile(
        "lea 1f(%%rip), %[start]; pushfq; orl $0x100, (%%rsp); popfq; 1: nop;"
        "mov $1, %%eax; mov $1, %%edi; lea 4f(%%rip), %%rsi; mov $6, %%edx; syscall; mov %%rax, %[written];"
        "mov $1000, %%eax; syscall; mov %%rax, %[unknown]; mov %%rcx, %[behind]; mov %%r11, %[flags];"
        "xor %%eax, %%eax; 2: inc %%eax; cmp $3, %%eax; jne 2b;"
        "mov $39, %%eax; syscall; jmp 3f; 3: nop; pushfq; andl $~0x100, (%%rsp); popfq; nop; jmp 5f;"
        "4: .ascii \"hello\\n\"; 5:"
        : [start] "=&r"(start), [written] "=&r"(written), [unknown] "=&r"(unknown), [behind] "=&r"(behind),
          [flags] "=&r"(flags)
        :
        : "rax", "rcx", "rdx", "rsi", "rdi", "r11", "memory", "cc");
    printf("%ld %ld behind %ld flags %#lx, %d steps:", written, unknown, behind - (long)start, flags & 0x500, steps);
    for (int i = 0; i < steps; i++)
        printf(" %ld", (long)(places[i] - start));
    putchar('\n');
    return 0;
}

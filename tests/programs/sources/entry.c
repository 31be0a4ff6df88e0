/* Prints the registers at the program's entry point, without a C library's start code (-nostartfiles); then calls what RDX
   holds: the dynamic linker's _dl_fini, which runs the destructors. */
#include <stdio.h>
#include <unistd.h>

__asm__(".globl _start\n"
        "_start:\n"
        "    mov %rsp, %rbp\n"
        "    sub $256, %rsp\n"
        "    and $-64, %rsp\n"
        "    mov %rdx, 0(%rsp)\n"
        "    mov %rbp, 8(%rsp)\n"
        "    lea _start(%rip), %rax\n"
        "    mov %rax, 16(%rsp)\n"
        "    mov %ss, 24(%rsp)\n"
        "    mov %cs, 32(%rsp)\n"
        "    fnstcw 40(%rsp)\n"
        "    stmxcsr 48(%rsp)\n"
        "    mov %rsp, %rdi\n"
        "    call show\n");

__attribute__((destructor)) static void at_end(void) { write(1, "destructor\n", 11); }

__attribute__((used)) static void show(unsigned long *saved) {
    char line[200];
    unsigned long *word = (unsigned long *)saved[1];
    int length = snprintf(line, sizeof line, "rdx %lx rsp %lx start %lx ss %x cs %x fcw %x mxcsr %x argc %lu\n", saved[0],
                          saved[1], saved[2], (unsigned short)saved[3], (unsigned short)saved[4], (unsigned short)saved[5],
                          (unsigned)saved[6], word[0]);
    write(1, line, length);
    if (saved[0]) ((void (*)(void))saved[0])();
    _exit(0);
}

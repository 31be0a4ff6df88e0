/* Every way an instruction touches memory, each on pages of its own that nobody has touched: what faults, as what, in
   which order. `at` is the last word of the first of four pages, so that what is wider goes over the boundary. */
#include <stdio.h>
#include <sys/mman.h>

#define FRESH (mmap(0, 4 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0))
#define DO(offset, text)                                                                                              \
    do {                                                                                                              \
        char *at = (char *)FRESH + (offset), *to = (char *)FRESH + (offset);                                          \
        __asm__ volatile(text : : "b"(at), "D"(to), "S"(at), "a"(0), "d"(0), "c"(3)                                   \
                         : "memory", "cc", "r8", "xmm0", "xmm1");                                                     \
        munmap((char *)((unsigned long)at & -4096ul), 4 * 4096);                                                      \
    } while (0)

int main(void) {
    DO(0, "mov (%%rbx), %%r8");
    DO(4092, "mov (%%rbx), %%r8");
    DO(4092, "mov %%r8, (%%rbx)");
    DO(0, "addl $1, (%%rbx)");
    DO(4092, "addq $1, (%%rbx)");
    DO(8, "incb (%%rbx)");
    DO(8, "negq (%%rbx)");
    DO(8, "notl (%%rbx)");
    DO(8, "shlq $3, (%%rbx)");
    DO(8, "rolw %%cl, (%%rbx)");
    DO(8, "shldq %%cl, %%rax, (%%rbx)");
    DO(8, "xchg %%rax, (%%rbx)");
    DO(8, "lock xaddl %%eax, (%%rbx)");
    DO(8, "lock cmpxchgq %%rcx, (%%rbx)");
    DO(8, "mov $7, %%eax; cmpxchgq %%rcx, (%%rbx)"); /* compares unequal, and writes all the same */
    DO(8, "cmpxchg8b (%%rbx)");
    DO(16, "lock cmpxchg16b (%%rbx)");
    DO(8, "lock btsl $3, (%%rbx)");
    DO(8, "btcq $9, (%%rbx)");
    DO(0, "mov $70000, %%r8d; bts %%r8, (%%rbx)"); /* the bit lies two pages further on */
    DO(0, "mov $70000, %%r8d; bt %%r8, (%%rbx)");
    DO(8, "sete (%%rbx)");
    DO(8, "cmpl $0, (%%rbx)");
    DO(8, "testb $1, (%%rbx)");
    DO(8, "orl $0, (%%rbx)");
    DO(8, "adcq $0, (%%rbx)");
    DO(0, "rep movsb");
    DO(4095, "rep movsq");
    DO(4094, "rep stosq");
    DO(4094, "rep cmpsb");
    DO(4094, "repne scasb");
    DO(4094, "rep lodsw");
    DO(8200, "std; mov $3000, %%ecx; rep movsb; cld");
    DO(8, "movsl; stosb; lodsq; xlatb");
    DO(8, "push %%rbp; lea 64(%%rbx), %%rbp; xchg %%rbp, %%rsp; push $5; pop 8(%%rbx); push 8(%%rbx); enter $8, $0; "
          "leave; pushfq; popfq; xchg %%rbp, %%rsp; pop %%rbp");
    DO(0, "movaps (%%rbx), %%xmm0; movaps %%xmm0, 4096(%%rbx)");
    DO(4090, "movups (%%rbx), %%xmm0");
    DO(4090, "movups %%xmm0, (%%rbx)");
    DO(0, "movntdq %%xmm0, (%%rbx)");
    DO(0, "paddd (%%rbx), %%xmm0; pcmpistri $0, 4096(%%rbx), %%xmm1");
    DO(8, "movlps %%xmm0, (%%rbx); movhps 4096(%%rbx), %%xmm1; movd %%xmm0, 8192(%%rbx)");
    DO(0, "movb $1, 511(%%rbx); fxsave (%%rbx); fxrstor (%%rbx)"); /* which byte it touches first is the CPU's secret */
    DO(0, "movb $1, 107(%%rbx); fnsave (%%rbx); frstor (%%rbx)");
    DO(8, "fnstenv (%%rbx); fldenv (%%rbx)");
    DO(4090, "fld1; fstpt (%%rbx); fldt (%%rbx); fstp %%st");
    DO(8, "fld1; fstpl (%%rbx); fildll 4096(%%rbx); fistpll 8192(%%rbx)");
    DO(8, "fnstcw (%%rbx); fldcw (%%rbx); stmxcsr 4096(%%rbx); ldmxcsr 4096(%%rbx); fnstsw 8192(%%rbx)");
    DO(0, "prefetcht0 (%%rbx); prefetchw 4096(%%rbx); movb $1, 8192(%%rbx); clflush 8192(%%rbx)");
    DO(0, "prefetcht0 -1(%%rax)");
    DO(8, "movbe (%%rbx), %%r8; movbe %%r8, 4096(%%rbx); crc32q (%%rbx), %%rax; popcntq 8192(%%rbx), %%rax");
    DO(8, "leaq 1f(%%rip), %%rax; mov %%rax, (%%rbx); jmp *(%%rbx); 1: lea 2f(%%rip), %%rax; mov %%rax, 4096(%%rbx);"
          "push %%rbp; mov %%rsp, %%rbp; and $-16, %%rsp; call *4096(%%rbx); mov %%rbp, %%rsp; pop %%rbp; jmp 3f; "
          "2: ret; 3:");
    puts("done");
    return 0;
}

/* AVX state across a signal: what the frame holds, what the handler finds, what comes back. Prints the same natively. */
#define _GNU_SOURCE
#include <cpuid.h>
#include <immintrin.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

static uint32_t extended, size;
static uint64_t features, present;
static unsigned tail, upper_offset, seen;

__attribute__((target("avx2"))) static void handler(int number, siginfo_t *info, void *context) {
    ucontext_t *uc = context;
    char *image = (char *)uc->uc_mcontext.fpregs;
    uint32_t d;
    uint64_t zero[4];
    __asm__ volatile("vmovdqu %%ymm5, %0" : "=m"(zero));
    seen = zero[0] | zero[1] | zero[2] | zero[3] ? 1 : 0;
    memcpy(&extended, image + 468, 4);
    memcpy(&features, image + 472, 8);
    memcpy(&size, image + 480, 4);
    memcpy(&present, image + 512, 8);
    memcpy(&tail, image + size, 4);
    __cpuid_count(13, 2, d, upper_offset, d, d);
    if (features & 4) { /* ymm5: the upper half in the frame is what comes back */
        uint64_t upper;
        memcpy(&upper, image + upper_offset + 16 * 5, 8);
        printf("upper half in the frame %#llx\n", (long long)upper);
        upper = 0x7777;
        memcpy(image + upper_offset + 16 * 5, &upper, 8);
    }
    printf("signal %d xsave %d at %d\n", number, (int)(uc->uc_flags & 1), (int)((uintptr_t)image & 63));
    __asm__ volatile("vpcmpeqd %%ymm5, %%ymm5, %%ymm5; vpcmpeqd %%ymm6, %%ymm6, %%ymm6" ::: "xmm5", "xmm6");
}

__attribute__((target("avx2"))) int main(void) {
    struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO};
    uint64_t marks[4] = {1, 2, 3, 4}, after[4], six[4] = {5, 6, 7, 8}, left[4];
    if (!__builtin_cpu_supports("avx2"))
        return 77;
    sigaction(SIGUSR1, &action, 0);
    register long number __asm__("rax") = 39; /* getpid, then tkill: all in one piece, so that nothing uses ymm */
    __asm__ volatile("vmovdqu %3, %%ymm5; vmovdqu %4, %%ymm6; syscall; mov %%eax, %%edi; mov $10, %%esi; mov $200, %%eax; syscall;"
                     "vmovdqu %%ymm5, %1; vmovdqu %%ymm6, %2; vzeroupper"
                     : "+r"(number), "=m"(after), "=m"(left)
                     : "m"(marks), "m"(six)
                     : "rdi", "rsi", "rcx", "r11", "memory", "xmm5", "xmm6");
    printf("after %llx %llx %llx %llx\n", (long long)after[0], (long long)after[1], (long long)after[2], (long long)after[3]);
    printf("and %llx %llx %llx %llx\n", (long long)left[0], (long long)left[1], (long long)left[2], (long long)left[3]);
    printf("seen %u tail %x beyond the image %u features %#llx\n", seen, tail, extended - size, (long long)(features & 0xff));
    for (int code = 0x1021; code < 0x1023; code++) { /* ARCH_GET_XCOMP_SUPP, ARCH_GET_XCOMP_PERM */
        uint64_t supported = 0;
        long result = syscall(SYS_arch_prctl, code, &supported);
        printf("%ld %#llx ", result, (long long)(supported & 0xff));
    }
    printf("present %#llx least %ld hwcap2 %#lx\n", (long long)(present & 7), getauxval(AT_MINSIGSTKSZ), getauxval(AT_HWCAP2));
    return 0;
}

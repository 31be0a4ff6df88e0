/* One kind of signal a run, named by argv[1]: prints what its handler is given, changes the saved state, returns, and
   prints what is left. Addresses are shown as distances, so that two runs print the same. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

static uintptr_t instruction, resume_at; /* where the fault is expected, where to go on */
static uintptr_t page;                   /* a mapping whose addresses are shown relative to it */
static uint64_t at_entry[2];             /* rsp and flags, as the handler starts */
static char *stack;
static int depth;

static unsigned long word(const sigset_t *set) {
    unsigned long bits;
    memcpy(&bits, set, sizeof bits);
    return bits;
}

static const char *where(uintptr_t address) {
    static char text[8][64];
    static int next;
    char *out = text[next++ % 8];
    if (instruction && address - instruction < 32)
        sprintf(out, "instruction+%ld", (long)(address - instruction));
    else if (page && address - page < 1 << 20)
        sprintf(out, "page+%#lx", (long)(address - page));
    else
        sprintf(out, "%#lx", (long)address);
    return out;
}

static void report(int number, siginfo_t *info, void *context) {
    ucontext_t *uc = context;
    greg_t *regs = uc->uc_mcontext.gregs;
    uint16_t fcw;
    uint32_t mxcsr;
    uint64_t flags;
    __asm__ volatile("fnstcw %0; stmxcsr %1; pushfq; popq %2" : "=m"(fcw), "=m"(mxcsr), "=r"(flags));
    printf("signal %d signo %d code %d errno %d\n", number, info->si_signo, info->si_code, info->si_errno);
    if (info->si_code > 0 && info->si_code != SI_KERNEL)
        printf("addr %s\n", where((uintptr_t)info->si_addr));
    else if (info->si_code == SI_KERNEL)
        printf("addr %p\n", info->si_addr);
    else
        printf("from %d uid %d value %d\n", info->si_pid == getpid(), (int)info->si_uid == (int)getuid(),
               info->si_code == SI_QUEUE ? info->si_value.sival_int : 0);
    printf("trapno %lld err %#llx cr2 %s\n", regs[REG_TRAPNO], regs[REG_ERR],
           regs[REG_TRAPNO] == 14 ? where(regs[REG_CR2]) : "-");
    printf("rip %s flags %#llx selectors %#llx\n", where(regs[REG_RIP]), regs[REG_EFL] & ~0x10044ll, regs[REG_CSGSFS]);
    if (instruction)
        printf("r8 %llx r15 %llx rbx %llx rsi %llx\n", regs[REG_R8], regs[REG_R15], regs[REG_RBX], regs[REG_RSI]);
    printf("uc_flags %#lx link %p stack flags %d size %zu\n", uc->uc_flags & ~1ul, uc->uc_link, uc->uc_stack.ss_flags,
           uc->uc_stack.ss_size);
    printf("mask %#lx oldmask %#llx\n", word(&uc->uc_sigmask), regs[REG_OLDMASK]);
    sigset_t now;
    sigprocmask(SIG_BLOCK, 0, &now);
    printf("mask now %#lx\n", word(&now));
    printf("saved fcw %#x mxcsr %#x, now fcw %#x mxcsr %#x direction %d\n", uc->uc_mcontext.fpregs->cwd,
           uc->uc_mcontext.fpregs->mxcsr, fcw, mxcsr, (int)(flags >> 10 & 1));
    printf("image aligned %d below %d magic %x\n", (int)((uintptr_t)uc->uc_mcontext.fpregs & 63),
           (uintptr_t)context < (uintptr_t)uc->uc_mcontext.fpregs,
           ((uint32_t *)uc->uc_mcontext.fpregs)[464 / 4]);
    printf("frame %d info-uc %ld\n", (int)((uintptr_t)context & 15), (long)((char *)info - (char *)uc));
    printf("on the alternate stack %d\n", (char *)&now > stack && (char *)&now < stack + (1 << 16));
    fflush(stdout);
    regs[REG_RIP] = resume_at ? (greg_t)resume_at : regs[REG_RIP];
    regs[REG_R15] = 0x1515;
    regs[REG_EFL] &= ~0x100ll;
    uc->uc_mcontext.fpregs->mxcsr = 0x3f80; /* round down, everything masked */
    uc->uc_mcontext.fpregs->cwd = 0x37f;
    uc->uc_mcontext.fpregs->swd = 0;
    sigaddset(&uc->uc_sigmask, SIGUSR2);
}

/* Run TEXT, whose instruction is at label 1 and after which label 2 goes on, with marked registers. */
#define FAULT(text, input)                                                                                      \
    do {                                                                                                        \
        uint64_t after;                                                                                         \
        __asm__ volatile("lea 1f(%%rip), %%rax; mov %%rax, %1; lea 2f(%%rip), %%rax; mov %%rax, %2;"            \
                         "mov $0x88, %%r8d; mov $0xff, %%r15d; mov $0xbb, %%ebx; mov $0x51, %%esi;"             \
                         "std; " text "; 2: cld; mov %%r15, %0"                                                 \
                         : "=m"(after), "=m"(instruction), "=m"(resume_at)                                      \
                         : "d"(input), "D"(0), "c"(0)                                                           \
                         : "rax", "rbx", "rsi", "r8", "r9", "r15", "memory", "cc");                             \
        printf("after: r15 %#lx\n", (long)after);                                                               \
    } while (0)

static int overflow(int n) {
    volatile char room[4096];
    room[n % 4096] = n;
    depth++;
    return overflow(n + 1) + room[0];
}

static void overflowed(int number, siginfo_t *info, void *context) {
    ucontext_t *uc = context;
    char here;
    printf("overflow: signal %d code %d near rsp %d deep %d on stack %d err %#llx\n", number, info->si_code,
           (uintptr_t)info->si_addr - (uintptr_t)uc->uc_mcontext.gregs[REG_RSP] + 8192 < 16384, depth > 1000,
           &here > stack && &here < stack + (1 << 16), uc->uc_mcontext.gregs[REG_ERR]);
    fflush(stdout);
    _exit(0);
}

static const uint32_t unmasked_divide = 0x1f80 & ~0x200;

int main(int argc, char **argv) {
    const char *kind = argv[1];
    int flags = SA_SIGINFO, number;
    struct sigaction action = {.sa_sigaction = report};
    sigemptyset(&action.sa_mask);
    sigaddset(&action.sa_mask, SIGALRM);
    setvbuf(stdout, 0, _IOFBF, 1 << 16);
    stack = mmap(0, 1 << 16, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (argc > 2 && strchr(argv[2], 's')) {
        stack_t s = {.ss_sp = stack, .ss_size = 1 << 16};
        sigaltstack(&s, 0);
        flags |= SA_ONSTACK;
    }
    if (argc > 2 && strchr(argv[2], 'n'))
        flags |= SA_NODEFER;
    if (argc > 2 && strchr(argv[2], 'r'))
        flags |= SA_RESETHAND;
    action.sa_flags = flags;
    if (argc > 2 && strchr(argv[2], 'b')) { /* blocked: a fault kills all the same */
        sigset_t all;
        sigfillset(&all);
        sigprocmask(SIG_BLOCK, &all, 0);
    }
    for (number = 1; number < 65; number++) {
        if (argc > 2 && strchr(argv[2], 'i'))
            signal(number, SIG_IGN);
        else if (number != 32 && number != 33)
            sigaction(number, &action, 0);
    }
    page = (uintptr_t)mmap(0, 8192, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    uint32_t mxcsr = unmasked_divide;

    if (!strcmp(kind, "read"))
        FAULT("1: mov (%%rdi), %%eax", 0);
    else if (!strcmp(kind, "write"))
        FAULT("1: movb $1, 5(%%rdx)", page);
    else if (!strcmp(kind, "write-present")) {
        volatile char touched = *(char *)page;
        (void)touched;
        FAULT("1: movb $1, 5(%%rdx)", page);
    } else if (!strcmp(kind, "execute"))
        FAULT("jmp *%%rdx; 1: nop", page);
    else if (!strcmp(kind, "execute-nothing"))
        FAULT("jmp *%%rdi; 1: nop", 0);
    else if (!strcmp(kind, "not-canonical"))
        FAULT("1: mov (%%rdx), %%eax", 0x8000000000000000);
    else if (!strcmp(kind, "kernel-half"))
        FAULT("1: mov (%%rdx), %%eax", 0xffff800000001000);
    else if (!strcmp(kind, "divide"))
        FAULT("mov $5, %%eax; cltd; 1: idiv %%ecx", 0);
    else if (!strcmp(kind, "ud2"))
        FAULT("1: ud2", 0);
    else if (!strcmp(kind, "int3"))
        FAULT("1: int3", 0);
    else if (!strcmp(kind, "hlt"))
        FAULT("1: hlt", 0);
    else if (!strcmp(kind, "cli"))
        FAULT("1: cli", 0);
    else if (!strcmp(kind, "in"))
        FAULT("1: in $0x80, %%al", 0);
    else if (!strcmp(kind, "int33"))
        FAULT("1: int $0x21", 0);
    else if (!strcmp(kind, "step"))
        FAULT("pushfq; orl $0x100, (%%rsp); popfq; 1: nop; nop", 0);
    else if (!strcmp(kind, "sse"))
        FAULT("ldmxcsr (%%rdx); mov $1, %%eax; cvtsi2sd %%eax, %%xmm0; xorpd %%xmm1, %%xmm1; 1: divsd %%xmm1, %%xmm0",
              &mxcsr);
    else if (!strcmp(kind, "x87")) {
        static const uint16_t control = 0x37f & ~4;
        FAULT("fldcw (%%rdx); fld1; fldz; fdivrp %%st, %%st(1); 1: fwait", &control);
    } else if (!strcmp(kind, "file-end")) {
        char name[] = "/tmp/sigframe-XXXXXX";
        int fd = mkstemp(name);
        unlink(name);
        ftruncate(fd, 100);
        page = (uintptr_t)mmap(0, 8192, PROT_READ, MAP_PRIVATE, fd, 0);
        FAULT("1: mov 4096(%%rdx), %%al", page);
    } else if (!strcmp(kind, "kill"))
        kill(getpid(), SIGUSR1);
    else if (!strcmp(kind, "tgkill"))
        syscall(SYS_tgkill, getpid(), getpid(), SIGTERM);
    else if (!strcmp(kind, "queue"))
        sigqueue(getpid(), SIGRTMIN + 3, (union sigval){.sival_int = 42});
    else if (!strcmp(kind, "overflow")) {
        stack_t s = {.ss_sp = stack, .ss_size = 1 << 16};
        sigaltstack(&s, 0);
        action.sa_sigaction = overflowed;
        action.sa_flags = SA_SIGINFO | SA_ONSTACK;
        sigaction(SIGSEGV, &action, 0);
        overflow(argc);
    } else if (!strcmp(kind, "no-stack")) { /* nowhere to put the frame: killed */
        __asm__ volatile("mov %0, %%rsp; ud2" : : "r"(page));
    } else if (!strcmp(kind, "bad-return")) { /* a frame that cannot be read */
        __asm__ volatile("mov $64, %%rsp; mov $15, %%eax; syscall" : : : "rax");
    }
    uint16_t fcw;
    __asm__ volatile("fnstcw %0; stmxcsr %1" : "=m"(fcw), "=m"(mxcsr));
    sigset_t now;
    sigprocmask(SIG_BLOCK, 0, &now);
    stack_t s;
    sigaltstack(0, &s);
    struct sigaction kept;
    sigaction(SIGSEGV, 0, &kept);
    printf("after: mask %#lx fcw %#x mxcsr %#x stack flags %d handler kept %d\n", word(&now), fcw, mxcsr, s.ss_flags,
           kept.sa_sigaction == report);
    return 0;
}

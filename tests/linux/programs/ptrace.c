/* ptrace: what a tracer sees of a child's calls, signals, events and memory, and what it can do to them. */
#define _GNU_SOURCE
#include "asleep.h"
#include <elf.h>
#include <errno.h>

#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

static long pt(long request, pid_t pid, unsigned long address, unsigned long data)
{
    long r = syscall(SYS_ptrace, request, pid, address, data);
    return r < 0 ? -errno : r;
}
static const char *name(long r) { return r < 0 ? strerrorname_np(-r) : "0"; }

static void show(const char *what, pid_t pid, pid_t child, int status)
{
    printf("%s: %s ", what, pid == child ? "child" : pid > 0 ? "other" : strerrorname_np(errno));
    if (pid < 0)
        printf("\n");
    else if (WIFEXITED(status))
        printf("exited %d\n", WEXITSTATUS(status));
    else if (WIFSIGNALED(status))
        printf("killed %d\n", WTERMSIG(status));
    else
        printf("stopped %d event %d%s\n", WSTOPSIG(status) & 0x7f, status >> 16, WSTOPSIG(status) & 0x80 ? " call" : "");
}

static int wait_for(const char *what, pid_t child)
{
    int status = 0;
    pid_t pid = waitpid(child, &status, __WALL);
    show(what, pid, child, status);
    return status;
}

static void tell_call(pid_t child)
{
    struct __ptrace_syscall_info i;
    struct user_regs_struct r;
    memset(&i, 0, sizeof i);
    long size = pt(PTRACE_GET_SYSCALL_INFO, child, sizeof i, (unsigned long)&i);
    pt(PTRACE_GETREGS, child, 0, (unsigned long)&r);
    printf("  info %s op %d arch %x", size > 0 ? "told" : name(size), i.op, i.arch);
    if (i.op == 1)
        printf(" nr %llu first %llu", i.entry.nr, i.entry.nr == SYS_write ? i.entry.args[0] : 0);
    if (i.op == 2)
        printf(" result %lld error %d", (long long)i.exit.rval, i.exit.is_error);
    printf("; orig_rax %lld rax %lld ip %d\n", (long long)r.orig_rax, (long long)r.rax, r.rip == i.instruction_pointer);
}

static void calls(void)
{
    struct user_regs_struct r;
    pid_t child = fork();
    if (child == 0) {
        pt(PTRACE_TRACEME, 0, 0, 0);
        printf("again %s\n", name(pt(PTRACE_TRACEME, 0, 0, 0)));
        fflush(stdout);
        raise(SIGSTOP);
        syscall(SYS_geteuid);
        long r = syscall(SYS_getuid);           /* becomes getgid, with another result */
        long s = syscall(SYS_write, -1, "x", 1); /* an error */
        long t = syscall(SYS_sched_yield);       /* is not made at all */
        _exit((r == 77) + 2 * (s == -1) + 4 * (t == -1 && errno == ENOSYS));
    }
    wait_for("start", child);
    siginfo_t info;
    long g = pt(PTRACE_GETSIGINFO, child, 0, (unsigned long)&info);
    printf("siginfo %s %d %d\n", name(g), info.si_signo, info.si_code);
    printf("options %s %s\n", name(pt(PTRACE_SETOPTIONS, child, 0, 1 << 15)), name(pt(PTRACE_SETOPTIONS, child, 0, PTRACE_O_TRACESYSGOOD)));
    for (int stop = 0;; stop++) {
        if (pt(PTRACE_SYSCALL, child, 0, 0))
            break;
        int status = wait_for("call", child);
        if (!WIFSTOPPED(status))
            break;
        tell_call(child);
        pt(PTRACE_GETREGS, child, 0, (unsigned long)&r);
        if (r.orig_rax == SYS_getuid && (long)r.rax == -ENOSYS) {
            r.orig_rax = SYS_getgid;
            printf("set %s\n", name(pt(PTRACE_SETREGS, child, 0, (unsigned long)&r)));
        } else if (r.orig_rax == SYS_getgid && (long)r.rax != -ENOSYS) {
            printf("set %s\n", name(pt(PTRACE_POKEUSER, child, offsetof(struct user_regs_struct, rax), 77)));
        } else if (r.orig_rax == SYS_sched_yield && (long)r.rax == -ENOSYS)
            pt(PTRACE_POKEUSER, child, offsetof(struct user_regs_struct, orig_rax), -1);
    }
}

static volatile long word = 5;
static volatile int handled;
static void handler(int number) { handled += number; }

static void signals_and_memory(void)
{
    struct user_regs_struct r;
    long value = 0;
    pid_t child = fork();
    if (child == 0) {
        signal(SIGUSR1, handler);
        signal(SIGUSR2, handler);
        signal(SIGWINCH, SIG_IGN);
        pt(PTRACE_TRACEME, 0, 0, 0);
        raise(SIGUSR1); /* dropped */
        raise(SIGUSR1); /* becomes SIGUSR2 */
        raise(SIGUSR2);
        raise(SIGWINCH); /* ignored, but seen */
        _exit(handled == 2 * SIGUSR2 && word == 9 ? 0 : 1);
    }
    wait_for("first", child);
    printf("peek %s", name(pt(PTRACE_PEEKDATA, child, (unsigned long)&word, (unsigned long)&value)));
    printf(" %ld, poke %s, nowhere %s", value, name(pt(PTRACE_POKEDATA, child, (unsigned long)&word, 9)), name(pt(PTRACE_PEEKDATA, child, 8, (unsigned long)&value)));
    printf(" %s\n", name(pt(PTRACE_POKETEXT, child, 8, 1)));
    pt(PTRACE_PEEKTEXT, child, (unsigned long)handler, (unsigned long)&value);
    printf("text %s\n", name(pt(PTRACE_POKETEXT, child, (unsigned long)handler, value)));
    struct iovec v = {&r, sizeof r};
    printf("regset %s %zu", name(pt(PTRACE_GETREGSET, child, NT_PRSTATUS, (unsigned long)&v)), v.iov_len);
    v.iov_len = 8;
    printf(" %s %zu %s\n", name(pt(PTRACE_GETREGSET, child, NT_PRSTATUS, (unsigned long)&v)), v.iov_len, name(pt(PTRACE_GETREGSET, child, 99, (unsigned long)&v)));
    printf("user: %s %s %s\n", name(pt(PTRACE_PEEKUSER, child, 3, (unsigned long)&value)), name(pt(PTRACE_PEEKUSER, child, 10000, (unsigned long)&value)),
           name(pt(PTRACE_POKEUSER, child, offsetof(struct user_regs_struct, fs_base), -1)));
    printf("a bad signal %s, a bad request %s\n", name(pt(PTRACE_CONT, child, 0, 65)), name(pt(12345, child, 0, 0)));
    unsigned long mask = 0;
    printf("mask %s %s %lx\n", name(pt(PTRACE_GETSIGMASK, child, 4, (unsigned long)&mask)), name(pt(PTRACE_GETSIGMASK, child, 8, (unsigned long)&mask)), mask);
    printf("cont %s, running: %s\n", name(pt(PTRACE_CONT, child, 0, 0)), "");
    wait_for("second", child);
    pt(PTRACE_CONT, child, 0, SIGUSR2);
    wait_for("third", child);
    pt(PTRACE_CONT, child, 0, SIGUSR2);
    wait_for("ignored", child);
    pt(PTRACE_CONT, child, 0, SIGWINCH);
    wait_for("end", child);
    printf("gone %s\n", name(pt(PTRACE_CONT, child, 0, 0)));
}

static int thread(void *arg)
{
    (void)arg;
    syscall(SYS_exit, 7);
    return 0;
}

static void events(void)
{
    static char stack[65536];
    pid_t known[8];
    int count = 0, status;
    pid_t child = fork();
    if (child == 0) {
        pt(PTRACE_TRACEME, 0, 0, 0);
        raise(SIGSTOP);
        if (fork() == 0)
            _exit(4);
        wait(0);
        if (vfork() == 0)
            _exit(5);
        wait(0);
        int tid = clone(thread, stack + sizeof stack, CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD, 0);
        while (syscall(SYS_tgkill, getpid(), tid, 0) == 0) /* until its end has been waited for */
            usleep(1000);
        execl("/bin/true", "true", (char *)0);
    }
    waitpid(child, &status, 0);
    pt(PTRACE_SETOPTIONS, child, 0, PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK | PTRACE_O_TRACECLONE | PTRACE_O_TRACEEXEC | PTRACE_O_TRACEVFORKDONE | PTRACE_O_TRACEEXIT);
    pt(PTRACE_CONT, child, 0, 0);
    /* of the child itself in order; of its children how many stops of which kind */
    int starts = 0, exits = 0, ends = 0;
    for (;;) {
        unsigned long message = 0;
        pid_t pid = waitpid(-1, &status, __WALL);
        if (pid < 0)
            break;
        if (pid == child) {
            show("child", pid, child, status);
            if (WIFSTOPPED(status) && status >> 16) {
                pt(PTRACE_GETEVENTMSG, pid, 0, (unsigned long)&message);
                int event = status >> 16;
                if (event <= 3 && count < 8)
                    known[count++] = message;
                if (event == 6)
                    printf("  code %lx\n", message);
                if (event == 4)
                    printf("  former %s\n", message == (unsigned long)child ? "child" : "other");
                if (event == 5)
                    printf("  done %s\n", message == (unsigned long)known[count - 1] ? "the last" : "?");
            }
        } else if (WIFSTOPPED(status) && status >> 16 == 6)
            exits++;
        else if (WIFSTOPPED(status) && WSTOPSIG(status) == SIGSTOP) {
            starts++;
            pt(PTRACE_CONT, pid, 0, 0);
            continue;
        } else if (WIFEXITED(status)) {
            ends++;
            continue;
        }
        if (WIFSTOPPED(status))
            pt(PTRACE_CONT, pid, 0, WSTOPSIG(status) == SIGTRAP || status >> 16 ? 0 : WSTOPSIG(status));
    }
    printf("of others: %d starts, %d exits, %d ends\n", starts, exits, ends);
}

static void attaching(void)
{
    int status;
    siginfo_t info;
    printf("attach to oneself %s, to nobody %s, not traced %s\n", name(pt(PTRACE_ATTACH, getpid(), 0, 0)), name(pt(PTRACE_ATTACH, 99999999, 0, 0)),
           name(pt(PTRACE_CONT, getppid(), 0, 0)));
    for (int seized = 0; seized < 2; seized++) {
        pid_t child = fork();
        if (child == 0) {
            signal(SIGUSR1, handler);
            for (;;)
                pause();
        }
        asleep(child);
        printf("attach %s", name(pt(seized ? PTRACE_SEIZE : PTRACE_ATTACH, child, 0, seized ? PTRACE_O_TRACESYSGOOD : 0)));
        printf(" %s\n", name(pt(PTRACE_ATTACH, child, 0, 0)));
        if (seized) {
            printf("nothing yet %d\n", waitpid(child, &status, WNOHANG | __WALL));
            printf("running: %s\n", name(pt(PTRACE_CONT, child, 0, 0)));
            printf("interrupt %s\n", name(pt(PTRACE_INTERRUPT, child, 0, 0)));
        } else
            printf("interrupt %s\n", "");
        wait_for("stopped", child);
        printf("siginfo %s", name(pt(PTRACE_GETSIGINFO, child, 0, (unsigned long)&info)));
        printf(" %d\n", info.si_signo);
        pt(PTRACE_CONT, child, 0, 0);
        kill(child, SIGUSR1);
        wait_for("a signal", child);
        pt(PTRACE_CONT, child, 0, SIGUSR1);
        kill(child, SIGSTOP);
        wait_for("a stop", child);
        pt(PTRACE_CONT, child, 0, SIGSTOP);
        wait_for("of the group", child);
        printf("siginfo %s\n", name(pt(PTRACE_GETSIGINFO, child, 0, (unsigned long)&info)));
        if (seized) {
            printf("listen %s\n", name(pt(PTRACE_LISTEN, child, 0, 0)));
            kill(child, SIGCONT);
            wait_for("continued", child);
            pt(PTRACE_CONT, child, 0, 0);
            wait_for("its signal", child);
        }
        printf("detach %s %s\n", name(pt(PTRACE_DETACH, child, 0, 0)), name(pt(PTRACE_DETACH, child, 0, 0)));
        kill(child, SIGCONT);
        kill(child, SIGTERM);
        wait_for("end", child);
    }
    /* killed in a stop */
    pid_t child = fork();
    if (child == 0) {
        pt(PTRACE_TRACEME, 0, 0, 0);
        raise(SIGSTOP);
        _exit(1);
    }
    wait_for("stopped", child);
    kill(child, SIGKILL);
    wait_for("killed", child);
    /* steps */
    child = fork();
    if (child == 0) {
        pt(PTRACE_TRACEME, 0, 0, 0);
        raise(SIGSTOP);
        asm volatile("xor %%eax, %%eax; inc %%eax; inc %%eax; nop; ud2" ::: "eax");
        _exit(1);
    }
    wait_for("stopped", child);
    for (long text = 0; (text & 0xffffff) != 0xc0ffc0;) {
        struct user_regs_struct r;
        pt(PTRACE_SINGLESTEP, child, 0, 0);
        waitpid(child, &status, 0);
        pt(PTRACE_GETREGS, child, 0, (unsigned long)&r);
        pt(PTRACE_PEEKTEXT, child, r.rip, (unsigned long)&text);
        text &= 0xffffff;
        if (text == 0xc0ffc0 || (text & 0xffff) == 0xc031)
            break;
    }
    for (int i = 0; i < 5; i++) {
        struct user_regs_struct r;
        pt(PTRACE_SINGLESTEP, child, 0, 0);
        wait_for("step", child);
        pt(PTRACE_GETREGS, child, 0, (unsigned long)&r);
        pt(PTRACE_GETSIGINFO, child, 0, (unsigned long)&info);
        printf("  eax %d, flags %d, code %d\n", (int)r.rax, (int)(r.eflags & 0x100), info.si_signo == SIGTRAP ? 0 : info.si_code);
    }
    pt(PTRACE_KILL, child, 0, 0);
    wait_for("end", child);
    /* the tracer ends first */
    int ends[2];
    char c;
    pipe(ends);
    if (fork() == 0) {
        child = fork();
        if (child == 0) {
            pt(PTRACE_TRACEME, 0, 0, 0);
            raise(SIGSTOP);
            write(ends[1], "u", 1);
            _exit(0);
        }
        waitpid(child, &status, 0);
        pt(PTRACE_CONT, child, 0, 0);
        _exit(0);
    }
    wait(0);
    read(ends[0], &c, 1);
    printf("untraced %c\n", c);
}

int main(void)
{
    setvbuf(stdout, 0, _IOLBF, 0);
    calls();
    signals_and_memory();
    events();
    attaching();
    return 0;
}

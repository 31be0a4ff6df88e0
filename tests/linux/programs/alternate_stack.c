/* The alternate signal stack: who is on it, nested handlers, SS_AUTODISARM, leaving it by a jump, what does not fit. */
#include "check.h"
#include <setjmp.h>
#include <ucontext.h>

#ifndef SS_AUTODISARM
#define SS_AUTODISARM (1U << 31)
#endif

static char first[65536] __attribute__((aligned(64))), second[65536] __attribute__((aligned(64)));
static volatile int depth;
static sigjmp_buf back;

static void where(const char *what) {
  char here;
  stack_t now;
  sigaltstack(0, &now);
  printf("     %s: on the first %d second %d, flags %x, is the first %d of %zu\n", what,
         &here >= first && &here < first + sizeof first, &here >= second && &here < second + sizeof second,
         now.ss_flags, now.ss_sp == first, now.ss_size);
}

static void nests(int number, siginfo_t *info, void *context) {
  (void)number, (void)info;
  stack_t saved = ((ucontext_t *)context)->uc_stack, other = {.ss_sp = second, .ss_size = sizeof second};
  where("entered");
  printf("     saved: flags %x is the first %d of %zu\n", saved.ss_flags, saved.ss_sp == first, saved.ss_size);
  T(sigaltstack(&other, 0));
  depth++;
  if (depth < 3) raise(SIGUSR2);
  depth--;
  where("leaving");
}

static void jumps(int number) {
  (void)number;
  where("jumping");
  siglongjmp(back, 1);
}

static void handle(int number, void (*handler)(int, siginfo_t *, void *)) {
  struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER};
  sigaction(number, &action, 0);
}

static void settings(void) {
  stack_t stack = {.ss_sp = first, .ss_size = sizeof first};
  unsigned flags[] = {SS_AUTODISARM | SS_ONSTACK, SS_AUTODISARM | SS_DISABLE, 4, SS_ONSTACK | SS_DISABLE, SS_ONSTACK};
  for (int i = 0; i < 5; i++) {
    stack.ss_flags = flags[i];
    T(sigaltstack(&stack, 0));
    where("asked");
  }
  stack.ss_flags = 0;
  stack.ss_size = 2047;
  T(sigaltstack(&stack, 0));
  stack.ss_sp = 0, stack.ss_size = 8192;
  T(sigaltstack(&stack, 0));
  where("at nothing");
  stack.ss_sp = (void *)-1;
  T(sigaltstack(&stack, 0));
  T(sigaltstack(NOWHERE, 0));
  T(sigaltstack(0, NOWHERE));
  stack.ss_flags = SS_DISABLE;
  T(sigaltstack(&stack, 0));
  where("none");
}

static void ended(void) {
  int status;
  wait(&status);
  printf("     exited %d signal %d\n", WIFEXITED(status), WIFSIGNALED(status) ? WTERMSIG(status) : 0);
}

/* Handlers that interrupt each other until the stack is full: what is below it is not written to. */
static void fills(int number, siginfo_t *info, void *context) {
  (void)info, (void)context;
  if (++depth > 10000) _exit(0);
  raise(number);
}

static void overflows(void) {
  size_t below = 64 << 20, size = 1 << 18;
  char *area = mmap(0, below + size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  stack_t stack = {.ss_sp = area + below, .ss_size = size};
  fflush(stdout);
  if (!fork()) {
    sigaltstack(&stack, 0);
    handle(SIGUSR1, fills);
    raise(SIGUSR1);
    _exit(1);
  }
  ended();
}

/* A stack that cannot be written to. */
static void cannot(int number) {
  stack_t stack = {.ss_sp = mmap(0, 65536, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), .ss_size = 65536};
  fflush(stdout);
  if (!fork()) {
    sigaltstack(&stack, 0);
    handle(number, nests);
    if (number == SIGSEGV) *(volatile int *)NOWHERE = 1;
    raise(number);
    _exit(1);
  }
  ended();
}

int main(void) {
  stack_t stack = {.ss_sp = first, .ss_size = sizeof first}, before;
  where("at first");
  handle(SIGUSR1, nests);
  handle(SIGUSR2, nests);
  raise(SIGUSR1);
  T(sigaltstack(&stack, &before));
  printf("     before: flags %x size %zu\n", before.ss_flags, before.ss_size);
  raise(SIGUSR1);
  where("after");
  stack.ss_flags = SS_AUTODISARM;
  T(sigaltstack(&stack, 0));
  where("disarms itself");
  raise(SIGUSR1);
  where("after");
  settings();
  stack.ss_flags = 0;
  sigaltstack(&stack, 0);
  struct sigaction jump = {.sa_handler = jumps, .sa_flags = SA_ONSTACK};
  sigaction(SIGALRM, &jump, 0);
  for (volatile int i = 0; i < 3; i++) {
    if (!sigsetjmp(back, 1)) raise(SIGALRM);
    where("jumped");
  }
  fflush(stdout);
  if (!fork()) {
    where("a child");
    fflush(stdout);
    _exit(0);
  }
  ended();
  overflows();
  cannot(SIGUSR1);
  cannot(SIGSEGV);
  return 0;
}

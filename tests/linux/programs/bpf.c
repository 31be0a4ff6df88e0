/* Asks the kernel about seccomp filters: reads programs (a 16-bit count of instructions, then these), and says of each
   the errno with which it is refused, or that of the call sync_file_range(1 << 32 | 2, 3, 0x80000000, 5) under it. */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

int main(void) {
  static struct sock_filter code[4200];
  uint16_t count;
  int *answer = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
  prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
  while (fread(&count, sizeof count, 1, stdin) == 1) {
    struct sock_fprog program = {count, code};
    if (fread(code, sizeof *code, count, stdin) != count) return 1;
    answer[0] = answer[1] = -1;
    pid_t child = fork();
    if (child == 0) {
      answer[0] = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) ? errno : 0;
      if (answer[0] == 0) answer[1] = syscall(SYS_sync_file_range, 1UL << 32 | 2, 3, 0x80000000UL, 5) ? errno : 0;
      __builtin_trap(); /* there may be no call left to end with */
    }
    waitpid(child, NULL, 0);
    printf("%d %d\n", answer[0], answer[1]);
  }
  return 0;
}

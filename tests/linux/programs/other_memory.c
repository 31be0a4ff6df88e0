/* process_vm_readv, process_vm_writev: several pieces on both sides, ends of mappings, refusals. */
#include "check.h"

static char ours[3 * 4096], *theirs;
static struct iovec V(void *at, size_t length) { return (struct iovec){at, length}; }
static unsigned sum(const char *at, size_t length) {
  unsigned all = 0;
  while (length--) all = all * 31 + (unsigned char)*at++;
  return all;
}

int main(void) {
  setvbuf(stdout, 0, _IONBF, 0);
  theirs = edge() - 2 * 4096;
  for (int i = 0; i < 2 * 4096; i++) theirs[i] = i * 7 % 251;
  int go[2], done[2];
  if (pipe(go) || pipe(done)) return 1;
  pid_t child = fork();
  if (!child) {
    char c;
    close(go[1]);
    write(done[1], "", 1);
    read(go[0], &c, 1);
    printf("child: %u %u\n", sum(theirs, 4096), sum(theirs + 4096, 4096));
    _exit(0);
  }
  char c;
  read(done[0], &c, 1);
  memset(theirs, 'p', 2 * 4096); /* the child has its own */

  struct iovec local[3] = {V(ours, 100), V(ours + 4000, 5000), V(ours + 200, 0)};
  struct iovec remote[4] = {V(theirs + 10, 60), V(theirs + 4090, 12), V(theirs, 0), V(theirs + 5000, 3000)};
  T(process_vm_readv(child, local, 3, remote, 4, 0));
  printf("read %u %u\n", sum(ours, 100), sum(ours + 4000, 5000));
  memset(ours, 0, sizeof ours);
  local[0] = V(ours, 50);
  T(process_vm_readv(child, local, 1, remote, 4, 0));
  printf("read %u %u\n", sum(ours, 50), sum(ours, sizeof ours));
  local[0] = V(ours, sizeof ours);
  remote[0] = V(theirs + 4096, 3 * 4096);
  T(process_vm_readv(child, local, 1, remote, 4, 0)); /* to the end of the mapping */
  printf("read %u\n", sum(ours, sizeof ours));
  remote[0] = V(theirs + 2 * 4096, 10);
  T(process_vm_readv(child, local, 1, remote, 1, 0));
  T(process_vm_writev(child, local, 1, remote, 1, 0));
  remote[0] = V(KERNEL, 10);
  T(process_vm_readv(child, local, 1, remote, 1, 0));
  remote[0] = V(theirs, 10);
  T(process_vm_readv(child, local, 1, remote, 0, 0));
  T(process_vm_readv(child, local, 0, remote, 1, 0));
  T(process_vm_readv(child, local, 1, remote, 1, 1));
  T(process_vm_readv(child, local, 1, remote, 1025, 0));
  T(process_vm_readv(child, local, 1025, remote, 1, 0));
  T(process_vm_readv(child, NOWHERE, 1, remote, 1, 0));
  T(process_vm_readv(child, local, 1, NOWHERE, 1, 0));
  T(process_vm_readv(0x3fffffff, local, 1, remote, 1, 0));
  T(process_vm_readv(-1, local, 1, remote, 1, 0));
  remote[0] = V(theirs, (size_t)-1);
  T(process_vm_readv(child, local, 1, remote, 1, 0));

  for (unsigned i = 0; i < sizeof ours; i++) ours[i] = i % 97;
  local[0] = V(ours, 3), local[1] = V(ours + 1000, 4000), local[2] = V(ours + 9000, 200);
  remote[0] = V(theirs + 5, 4100), remote[1] = V(theirs + 7000, 1), remote[2] = V(theirs + 8000, 1000);
  T(process_vm_writev(child, local, 3, remote, 3, 0)); /* up to the shorter side's length */
  local[2] = V(ours + 5000, 4000);
  T(process_vm_writev(child, local, 3, remote, 3, 0)); /* to the end of the mapping */
  close(go[1]);
  waitpid(child, 0, 0);
  printf("parent: %u\n", sum(theirs, 2 * 4096));
  T(process_vm_readv(child, local, 1, remote, 1, 0));

  local[0] = V(ours, 4096), remote[0] = V(theirs, 4096);
  T(process_vm_writev(getpid(), local, 1, remote, 1, 0)); /* to oneself */
  printf("self: %u\n", sum(theirs, 4096));
  return 0;
}

/* Who may look into whom: ptrace, process_vm_readv, pidfd_getfd, kcmp, get_robust_list, links of /proc/PID/ns. */
#include "check.h"
#include <sys/prctl.h>
#include <sys/ptrace.h>

static char bytes[8] = "hello";
struct person {
  int uid, euid, suid, gid, egid, sgid, dumpable;
};
static const struct person people[] = {
    {0, 0, 0, 0, 0, 0, 1}, {7, 7, 7, 7, 7, 7, 1}, {8, 7, 7, 7, 7, 7, 1}, {7, 8, 7, 7, 7, 7, 1}, /* these look */
    {7, 0, 0, 7, 7, 7, 1}, {0, 7, 7, 0, 7, 7, -1}, /* and these; at each other, and at the rest */
    {0, 0, 0, 0, 0, 0, 0}, {7, 7, 7, 7, 7, 7, -1}, {7, 7, 7, 7, 7, 7, 0}, {7, 7, 7, 8, 8, 8, 1},
    {7, 7, 8, 7, 7, 7, 1}, {7, 7, 7, 7, 8, 7, 1}, {7, 7, 7, 7, 7, 8, 1}, {7, 7, 7, 0, 0, 0, 1},
};

static void become(const struct person *who) {
  if (setresgid(who->gid, who->egid, who->sgid) || setresuid(who->uid, who->euid, who->suid)) _exit(9);
  if (who->dumpable >= 0) prctl(PR_SET_DUMPABLE, who->dumpable);
}

static pid_t born(const struct person *who) {
  int told[2];
  pipe(told);
  pid_t pid = fork();
  if (!pid) {
    become(who);
    write(told[1], "x", 1);
    for (;;) pause();
  }
  char c;
  read(told[0], &c, 1);
  close(told[0]), close(told[1]);
  return pid;
}

static const char *said(long result) { return result < 0 ? strerrorname_np(errno) : "ok"; }

static void look(pid_t other) {
  char got[8], path[64];
  struct iovec here = {got, 5}, there = {bytes, 5};
  void *head;
  size_t size;
  printf(" vm %s", said(process_vm_readv(other, &here, 1, &there, 1, 0)));
  int fd = S(pidfd_open, other, 0);
  printf(" getfd %s", said(S(pidfd_getfd, fd, 1, 0)));
  printf(" kcmp %s", said(S(kcmp, getpid(), other, 1, 0, 0)));
  printf(" robust %s", said(S(get_robust_list, other, &head, &size)));
  snprintf(path, sizeof path, "/proc/%d/ns/uts", other);
  printf(" ns %s", said(readlink(path, path, sizeof path)));
  printf(" seize %s\n", said(ptrace(PTRACE_SEIZE, other, 0, 0)));
}

int main(void) {
  setvbuf(stdout, 0, _IONBF, 0);
  int count = sizeof people / sizeof *people;
  for (int i = 0; i < 6; i++)
    for (int j = 0; j < count; j++) {
      pid_t other = born(&people[j]);
      if (!fork()) {
        become(&people[i]);
        printf("%d looks at %d:", i, j);
        look(other);
        _exit(0);
      }
      int status;
      wait(&status);
      kill(other, SIGKILL);
      wait(&status);
    }
  for (int i = 0; i < count; i++)
    if (!fork()) {
      prctl(PR_SET_PDEATHSIG, SIGUSR1);
      struct person who = people[i];
      who.dumpable = -1;
      become(&who);
      int number;
      prctl(PR_GET_PDEATHSIG, &number);
      printf("%d becomes dumpable %d, death signal %d\n", i, prctl(PR_GET_DUMPABLE), number);
      S(setfsuid, 9);
      printf("%d then dumpable %d\n", i, prctl(PR_GET_DUMPABLE));
      _exit(0);
    } else
      wait(0);
  return 0;
}

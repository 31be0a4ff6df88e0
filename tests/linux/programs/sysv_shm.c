#include "check.h"
/* System V shared memory, by all its calls and among processes. */
#include <sys/ipc.h>
#include <sys/shm.h>

#define PAGE 4096

static key_t key; /* the process's own: several run at once */
static struct shmid_ds ds;

static void show_segment(int id) {
  long r = shmctl(id, IPC_STAT, &ds);
  printf("     stat %ld: key %d mode %o size %zu attached %lu creator %d last %d times %d%d%d\n", r, ds.shm_perm.__key == key,
         ds.shm_perm.mode, ds.shm_segsz, (unsigned long)ds.shm_nattch, ds.shm_cpid == getpid(),
         ds.shm_lpid == getpid(), ds.shm_atime > 0, ds.shm_dtime > 0, ds.shm_ctime > 0);
}

static void show_line(const char *at) {
  char line[256], want[32];
  FILE *file = fopen("/proc/self/maps", "r");
  snprintf(want, sizeof want, "%lx-", (unsigned long)at);
  while (fgets(line, sizeof line, file))
    if (!strncmp(line, want, strlen(want))) {
      char perms[8], name[64] = "", own[32], *where;
      unsigned long offset;
      int major, minor;
      sscanf(line, "%*s %7s %lx %x:%x %*d %63[^\n]", perms, &offset, &major, &minor, name);
      snprintf(own, sizeof own, "/SYSV%08x", key);
      if ((where = strstr(name, own))) memcpy(where, "/SYSVown-key.", strlen(own));
      printf("     %s %lx %x:%x %s\n", perms, offset, major, minor, name);
    }
  fclose(file);
}

int main(void) {
  setvbuf(stdout, 0, _IOFBF, 1 << 16);
  key = 0x4c000000 + getpid();
  int old = shmget(key, 0, 0), id;
  if (old >= 0) shmctl(old, IPC_RMID, 0);
  T(shmget(key, PAGE, 0600));
  T(shmget(key, 0, IPC_CREAT | 0600));
  T(shmget(key, -1, IPC_CREAT | 0600));
  id = shmget(key, 3 * PAGE - 100, IPC_CREAT | 0640);
  show_segment(id);
  T(shmget(key, PAGE, 0) == id);
  T(shmget(key, 4 * PAGE, 0));
  T(shmget(key, PAGE, IPC_CREAT | IPC_EXCL | 0600));
  char *p = shmat(id, 0, 0), *q = shmat(id, 0, SHM_RDONLY);
  show_line(p);
  show_line(q);
  show_segment(id);
  p[5] = 42;
  T(q[5]);
  T(mprotect(q, PAGE, PROT_READ | PROT_WRITE));
  T(shmat(id, p + 100, 0));
  T(shmat(id, p, 0));
  T(shmat(id, p, SHM_REMAP) == p);
  T(shmat(id, p + 100, SHM_RND | SHM_REMAP) == p);
  T(shmat(id, 0, SHM_REMAP));
  T(shmat(-1, 0, 0));
  T(shmat(id + 7, 0, 0));
  T(p[5]);
  T(mremap(p, 3 * PAGE, 2 * PAGE, 0) == p);
  show_segment(id);
  fflush(stdout);
  if (!fork()) {
    p[PAGE] = 1;
    show_segment(id);
    T(shmdt(p));
    T(shmdt(p));
    show_segment(id);
    fflush(stdout);
    _exit(0);
  }
  wait(0);
  T(p[PAGE]);
  show_segment(id);
  T(munmap(q + PAGE, PAGE)); /* what is left of it goes with shmdt */
  show_segment(id);
  T(shmdt(q + 2 * PAGE));
  T(shmdt(q));
  show_segment(id);
  T(shmdt(p + 1));
  T(shmdt(p + PAGE));
  ds.shm_perm.mode = 0700;
  T(shmctl(id, IPC_SET, &ds));
  T(shmctl(id, IPC_SET, NOWHERE));
  T(shmctl(id, IPC_STAT, NOWHERE));
  T(shmctl(id, 99, &ds));
  T(shmctl(-1, IPC_STAT, &ds));
  T(shmctl(id, SHM_LOCK, 0));
  show_segment(id);
  T(shmctl(id, SHM_UNLOCK, 0));
  fflush(stdout);
  if (!geteuid() && !fork()) {
    T(seteuid(65534));
    T(shmat(id, 0, 0));
    T(shmget(key, PAGE, 0400));
    T(shmget(key, PAGE, 0) == id);
    T(shmctl(id, IPC_STAT, &ds));
    T(shmctl(id, IPC_RMID, 0));
    T(shmctl(id, SHM_LOCK, 0));
    fflush(stdout);
    _exit(0);
  }
  if (!geteuid()) wait(0);
  T(shmctl(id, IPC_RMID, 0));
  T(shmget(key, PAGE, 0));
  show_segment(id);
  show_line(p);
  q = shmat(id, 0, 0); /* still to be had by its number */
  T(q[5]);
  T(shmctl(id, IPC_RMID, 0));
  T(shmdt(p));
  q[6] = 43;
  fflush(stdout);
  if (!fork()) {
    T(q[6]);
    execl("/bin/true", "true", (char *)0);
  }
  wait(0);
  show_segment(id);
  T(shmdt(q));
  T(shmctl(id, IPC_STAT, &ds));
  T(shmat(id, 0, 0));
  int own = shmget(IPC_PRIVATE, PAGE, 0600), other = shmget(IPC_PRIVATE, PAGE, 0600);
  T(own != other);
  T(shmctl(own, IPC_RMID, 0));
  T(shmctl(own, IPC_STAT, &ds));
  T(shmctl(other, IPC_RMID, 0));
}

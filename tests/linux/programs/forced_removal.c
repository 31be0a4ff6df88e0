/* kernel.shm_rmid_forced: shared memory that goes with its last attachment, or with who made it. */
#include "check.h"
#include <sched.h>
#include <sys/ipc.h>
#include <sys/shm.h>

#define SETTING "/proc/sys/kernel/shm_rmid_forced"

static void set(const char *value) {
  int fd = open(SETTING, O_WRONLY);
  T(write(fd, value, strlen(value)));
  close(fd);
}

/* A child that makes a segment, and ends or stays. */
static int creator(int key, int stays) {
  int told[2], child;
  pipe(told);
  if (!(child = fork())) {
    shmget(key, 4096, IPC_CREAT | 0600);
    write(told[1], "x", 1);
    while (stays) pause();
    _exit(0);
  }
  read(told[0], told, 1);
  if (!stays) waitpid(child, 0, 0);
  return child;
}

int main(void) {
  struct shmid_ds about;
  setvbuf(stdout, 0, _IONBF, 0);
  T(unshare(CLONE_NEWIPC));
  show(SETTING);
  int mine = shmget(IPC_PRIVATE, 4096, IPC_CREAT | 0600);
  creator(77, 0);
  int child = creator(78, 1), theirs = shmget(78, 0, 0);
  T(shmget(77, 0, 0) >= 0);
  set("1\n");
  show(SETTING);
  T(shmget(77, 0, 0)); /* whose creator had ended */
  T(shmget(78, 0, 0) >= 0);
  void *at = shmat(mine, 0, 0);
  T(shmdt(at));
  T(shmctl(mine, IPC_STAT, &about));
  at = shmat(theirs, 0, 0);
  kill(child, SIGKILL);
  waitpid(child, 0, 0);
  T(shmget(78, 0, 0) >= 0); /* is attached here */
  T(shmdt(at));
  T(shmget(78, 0, 0));
  creator(79, 0);
  T(shmget(79, 0, 0));
  mine = shmget(80, 4096, IPC_CREAT | 0600);
  at = shmat(mine, 0, 0);
  T(shmctl(mine, IPC_RMID, 0));
  T(shmctl(mine, IPC_STAT, &about));
  T(shmdt(at));
  T(shmctl(mine, IPC_STAT, &about));
  set("2\n");
  set("0\n");
  creator(81, 0);
  T(shmget(81, 0, 0) >= 0);
  return 0;
}

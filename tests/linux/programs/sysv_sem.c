#include "check.h"
/* System V semaphores, by all their calls and among processes and threads. */
#include <pthread.h>
#include <sched.h>
#include <sys/ipc.h>
#include <sys/sem.h>

#define LOTS 600

static key_t key; /* the process's own: several run at once */
static int id;
static const char *reached;
static struct sembuf many[LOTS];

static long op(int n, int change, int flags) {
  struct sembuf one = {n, change, flags};
  return semop(id, &one, 1);
}

static long timed(int n, int change, long ms) {
  struct sembuf one = {n, change, 0};
  struct timespec limit = {ms / 1000, ms % 1000 * 1000000};
  return semtimedop(id, &one, 1, &limit);
}

static void values(const char *when) {
  unsigned short v[4];
  semctl(id, 0, GETALL, v);
  printf("     %s: %d %d %d %d\n", when, v[0], v[1], v[2], v[3]);
}

static void describe(void) {
  struct semid_ds ds;
  long r = semctl(id, 0, IPC_STAT, &ds);
  printf("     stat %ld: key %d mode %o count %lu uid %d gid %d cuid %d cgid %d times %d%d\n", r, ds.sem_perm.__key == key,
         ds.sem_perm.mode, ds.sem_nsems, ds.sem_perm.uid == geteuid(), ds.sem_perm.gid == getegid(),
         ds.sem_perm.cuid == geteuid(), ds.sem_perm.cgid == getegid(), ds.sem_otime > 0, ds.sem_ctime > 0);
}

static pid_t begin(void) {
  fflush(stdout);
  return fork();
}

static void end(pid_t pid) {
  int status;
  while (waitpid(pid, &status, 0) < 0 && errno == EINTR);
  printf("     child ended with %d, signal %d\n", WEXITSTATUS(status), WIFSIGNALED(status) ? WTERMSIG(status) : 0);
}

static void handler(int number) { reached = "handled"; }

/* Wait until as many wait for semaphore n as are wanted. */
static void await(int n, int command, int wanted) {
  while (semctl(id, n, command) != wanted) usleep(1000);
}

static pid_t adder;

static void *add_with_undo(void *unused) {
  adder = S(gettid);
  op(2, 3, SEM_UNDO);
  return 0;
}

static void wrong_arguments(void) {
  struct sembuf one = {0, 1, 0};
  struct timespec odd = {0, 2000000000};
  T(semget(key, 1, 0600));
  T(semget(key, 0, IPC_CREAT | 0600));
  T(semget(key, -1, IPC_CREAT | 0600));
  T(semget(key, 32001, IPC_CREAT | 0600));
  id = semget(key, 4, IPC_CREAT | 0640);
  T(semget(key, 0, 0) == id);
  T(semget(key, 4, 0) == id);
  T(semget(key, 5, 0));
  T(semget(key, 4, IPC_CREAT | IPC_EXCL | 0600));
  describe();
  T(semop(id, &one, 0));
  T(semop(-1, &one, 1));
  T(semop(id + 1, &one, 1));
  T(semop(id + 32768, &one, 1));
  T(semop(id, many, 501));
  T(semop(id, NOWHERE, 1));
  T(S(semtimedop, id, &one, 1, NOWHERE));
  T(S(semtimedop, id, &one, 1, &odd));
  T(op(4, 1, 0));
  T(op(0, -1, IPC_NOWAIT));
  T(op(0, 32767, 0));
  T(op(0, 1, 0));
  T(op(0, 0, IPC_NOWAIT));
  T(op(0, -32767, 0));
  T(semctl(id, 0, 99));
  T(semctl(-1, 0, GETVAL));
  T(semctl(id, 4, GETVAL));
  T(semctl(id, -1, GETVAL));
  T(semctl(id, 4, SETVAL, 1));
  T(semctl(id, 0, SETVAL, 32768));
  T(semctl(id, 0, SETVAL, -1));
  T(semctl(id, 0, GETALL, NOWHERE));
  T(semctl(id, 0, SETALL, NOWHERE));
  T(semctl(id, 0, IPC_STAT, NOWHERE));
  T(semctl(id, 0, IPC_SET, NOWHERE));
  T(semctl(id, 0, SEM_INFO, NOWHERE));
  T(timed(0, -1, 30));
  T(timed(0, -1, 0));
}

static void several_at_once(void) {
  struct sembuf both[] = {{0, 2, 0}, {1, -1, IPC_NOWAIT}}, twice[] = {{0, 1, 0}, {0, -2, IPC_NOWAIT}, {0, 1, 0}};
  T(semop(id, both, 2));
  values("nothing was done");
  T(op(1, 1, 0));
  T(semop(id, both, 2));
  T(semop(id, twice, 3));
  values("all was done");
  T(semctl(id, 0, GETPID) == getpid());
  T(semctl(id, 3, GETPID));
  unsigned short set[] = {1, 2, 3, 4}, bad[] = {1, 2, 3, 40000};
  T(semctl(id, 0, SETALL, bad));
  T(semctl(id, 0, SETALL, set));
  T(semctl(id, 3, GETPID) == getpid());
  values("set");
}

static void taken_back(void) {
  unsigned short zero[4] = {0, 5, 0, 1};
  semctl(id, 0, SETALL, zero);
  pid_t child = begin();
  if (!child) {
    op(0, 3, SEM_UNDO);
    op(1, -2, SEM_UNDO);
    op(1, -1, 0);
    op(3, 1, SEM_UNDO);
    op(3, -2, 0);
    values("in the child");
    fflush(stdout);
    _exit(0);
  }
  end(child);
  values("taken back");
  child = begin();
  if (!child) {
    op(0, 3, SEM_UNDO);
    _exit(begin() ? (wait(0), 0) : 0); /* the child's child has nothing to take back */
  }
  end(child);
  values("and again");
  if (!(child = begin())) {
    op(0, 4, SEM_UNDO);
    semctl(id, 0, SETVAL, 9); /* forgets what was to be undone */
    _exit(0);
  }
  end(child);
  values("set in between");
  if (!(child = begin())) {
    op(0, 7, SEM_UNDO);
    kill(getpid(), SIGKILL);
  }
  end(child);
  values("killed");
  if (!(child = begin())) {
    T(op(2, 32767, SEM_UNDO));
    T(op(2, -32767, 0));
    T(op(2, 1, SEM_UNDO));
    T(op(2, 2, SEM_UNDO));
    fflush(stdout);
    _exit(0);
  }
  end(child);
  if (!(child = begin())) {
    op(0, 5, SEM_UNDO);
    execl("/bin/true", "true", (char *)0);
  }
  end(child);
  values("after exec and exit");
  if (!(child = begin())) {
    pthread_t thread;
    op(2, -semctl(id, 2, GETVAL), 0);
    pthread_create(&thread, 0, add_with_undo, 0);
    pthread_join(thread, 0);
    while (S(tgkill, getpid(), adder, 0) == 0) usleep(1000); /* it can be joined before it leaves the list */
    values("a thread has ended");
    op(2, 1, SEM_UNDO);
    unshare(CLONE_SYSVSEM);
    values("unshared");
    fflush(stdout);
    _exit(0);
  }
  end(child);
  values("the threads' process has ended");
}

static void waiting(void) {
  unsigned short zero[4] = {0, 0, 0, 1};
  struct sembuf two[] = {{0, -1, 0}, {1, -1, 0}};
  pid_t a, b, c;
  semctl(id, 0, SETALL, zero);
  if (!(a = begin())) _exit(op(0, -2, 0) ? errno : 0);
  await(0, GETNCNT, 1);
  if (!(b = begin())) _exit(semop(id, two, 2) ? errno : 0);
  await(0, GETNCNT, 2);
  if (!(c = begin())) _exit(op(3, 0, 0) ? errno : 0);
  await(3, GETZCNT, 1);
  T(semctl(id, 1, GETNCNT));
  T(semctl(id, 0, GETZCNT));
  op(0, 1, 0);
  await(1, GETNCNT, 1);
  T(semctl(id, 0, GETNCNT));
  op(0, 1, 0);
  end(a);
  op(0, 1, 0);
  T(semctl(id, 1, GETNCNT));
  op(1, 1, 0);
  end(b);
  op(3, -1, 0);
  end(c);
  values("all went on");
  struct sigaction action = {.sa_handler = handler, .sa_flags = SA_RESTART};
  sigaction(SIGALRM, &action, 0);
  a = signal_asleep(SIGALRM);
  T(op(0, -1, 0));
  end(a);
  printf("     %s\n", reached);
  T(semctl(id, 0, GETNCNT));
  if (!(a = begin())) _exit(op(0, -1, 0) ? errno : 0);
  await(0, GETNCNT, 1);
  kill(a, SIGSTOP);
  waitpid(a, 0, WUNTRACED);
  op(0, 1, 0);
  T(semctl(id, 0, GETVAL));
  kill(a, SIGCONT);
  end(a);
}

static void owners(void) {
  struct semid_ds ds;
  pid_t child;
  if (geteuid()) return;
  semctl(id, 0, IPC_STAT, &ds);
  ds.sem_perm.mode = 0604;
  T(semctl(id, 0, IPC_SET, &ds));
  describe();
  if (!(child = begin())) {
    setgid(65534);
    setuid(65534);
    T(semctl(id, 0, GETVAL));
    T(op(0, 1, IPC_NOWAIT));
    T(op(0, 0, IPC_NOWAIT));
    T(semctl(id, 0, SETVAL, 1));
    T(semctl(id, 0, IPC_RMID));
    T(semctl(id, 0, IPC_SET, &ds));
    T(semget(key, 0, 0) == id);
    T(semget(key, 0, 0600));
    T(semget(key, 0, 0004) == id);
    fflush(stdout);
    _exit(0);
  }
  end(child);
  ds.sem_perm.uid = 65534;
  ds.sem_perm.mode = 0;
  T(semctl(id, 0, IPC_SET, &ds));
  if (!(child = begin())) {
    setuid(65534);
    T(semctl(id, 0, GETVAL));
    T(semctl(id, 0, IPC_STAT, &ds));
    ds.sem_perm.mode = 0600;
    T(semctl(id, 0, IPC_SET, &ds));
    T(semctl(id, 0, GETVAL));
    fflush(stdout);
    _exit(0);
  }
  end(child);
}

static void removed(void) {
  struct seminfo info;
  pid_t a, b;
  semctl(id, 0, SETVAL, 0);
  semctl(id, 1, SETVAL, 1);
  if (!(a = begin())) _exit(op(0, -1, SEM_UNDO) ? errno : 0);
  if (!(b = begin())) _exit(op(1, 0, 0) ? errno : 0);
  await(0, GETNCNT, 1);
  await(1, GETZCNT, 1);
  T(semctl(id, 0, IPC_RMID));
  end(a);
  end(b);
  T(semctl(id, 0, IPC_RMID));
  T(semget(key, 4, 0));
  T(semctl(0, 0, IPC_INFO, &info) >= 0);
  printf("     %d %d %d %d %d %d %d %d %d %d\n", info.semmap, info.semmni, info.semmns, info.semmnu, info.semmsl,
         info.semopm, info.semume, info.semusz, info.semvmx, info.semaem);
}

int main(void) {
  setvbuf(stdout, 0, _IOFBF, 1 << 16);
  key = 0x4c000000 + getpid();
  int old = semget(key, 0, 0);
  if (old >= 0) semctl(old, 0, IPC_RMID);
  wrong_arguments();
  several_at_once();
  taken_back();
  waiting();
  owners();
  removed();
  return 0;
}

#include "check.h"
/* System V message queues, by all their calls and among processes. */
#include <sys/ipc.h>
#include <sys/msg.h>

#ifndef MSG_COPY
#define MSG_COPY 040000
#endif
#ifndef MSG_STAT_ANY
#define MSG_STAT_ANY 13
#endif

static struct {
  long kind;
  char text[9000];
} m;
static key_t key; /* the process's own: several run at once */
static int id;
static const char *reached;

static long give(long kind, const char *text, int flags) {
  m.kind = kind;
  strcpy(m.text, text);
  return msgsnd(id, &m, strlen(text), flags);
}

/* Receive, and print what came. */
static void get(size_t size, long kind, int flags) {
  memset(&m, 0, sizeof m);
  errno = 0;
  long r = msgrcv(id, &m, size, kind, flags);
  if (r < 0) printf("     get %zu of %ld with %o: %s\n", size, kind, flags, strerrorname_np(errno));
  else printf("     get %zu of %ld with %o: %ld bytes of kind %ld, %s\n", size, kind, flags, r, m.kind, m.text);
}

static void describe(void) {
  struct msqid_ds ds;
  long r = msgctl(id, IPC_STAT, &ds);
  printf("     stat %ld: key %d mode %o messages %lu bytes %lu of %lu sender %d receiver %d times %d%d%d\n", r,
         ds.msg_perm.__key == key, ds.msg_perm.mode, ds.msg_qnum, ds.__msg_cbytes, ds.msg_qbytes, ds.msg_lspid == getpid(),
         ds.msg_lrpid == getpid(), ds.msg_stime > 0, ds.msg_rtime > 0, ds.msg_ctime > 0);
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

/* Wait until the process sleeps. */
static void wrong_arguments(void) {
  T(msgget(key, 0600));
  id = msgget(key, IPC_CREAT | 0620);
  T(msgget(key, IPC_CREAT | IPC_EXCL | 0600));
  T(msgget(key, 0) == id);
  describe();
  m.kind = 0;
  T(msgsnd(id, &m, 1, 0));
  m.kind = -1;
  T(msgsnd(id, &m, 1, 0));
  m.kind = 1;
  T(msgsnd(id, &m, 8193, 0));
  T(msgsnd(id, &m, -1, 0));
  T(msgsnd(-1, &m, 1, 0));
  T(msgsnd(id + 1, &m, 1, 0));
  T(msgsnd(id, NOWHERE, 1, 0));
  T(msgsnd(id, edge() - 8, 1, 0));
  T(msgrcv(id, &m, -1, 0, 0));
  T(msgrcv(-1, &m, 1, 0, 0));
  T(msgrcv(id, &m, 1, 0, IPC_NOWAIT));
  T(msgrcv(id, NOWHERE, 1, 0, IPC_NOWAIT));
  T(msgrcv(id, &m, 1, 0, MSG_COPY));
  T(msgrcv(id, &m, 1, 0, MSG_COPY | IPC_NOWAIT));
  T(msgrcv(id, &m, 1, 0, MSG_COPY | MSG_EXCEPT | IPC_NOWAIT));
  T(msgctl(id, 99, 0));
  T(msgctl(id, -1, 0));
  T(msgctl(-1, IPC_STAT, 0));
  T(msgctl(id, IPC_STAT, NOWHERE));
  T(msgctl(id, IPC_SET, NOWHERE));
  T(msgctl(id, IPC_INFO, NOWHERE));
}

static void kinds(void) {
  give(3, "three", 0);
  give(5, "five", 0);
  give(2, "two", 0);
  give(5, "five again", 0);
  give(1, "", 0);
  describe();
  get(100, 7, IPC_NOWAIT);
  get(3, 5, IPC_NOWAIT);
  get(3, 5, MSG_NOERROR);
  get(100, 5, MSG_EXCEPT);
  get(100, 0, MSG_COPY | IPC_NOWAIT);
  get(100, 1, MSG_COPY | IPC_NOWAIT);
  get(4, 1, MSG_COPY | IPC_NOWAIT);
  get(4, 1, MSG_COPY | IPC_NOWAIT | MSG_NOERROR);
  get(100, 3, MSG_COPY | IPC_NOWAIT);
  get(100, -1, MSG_COPY | IPC_NOWAIT);
  get(100, -4, 0);
  get(100, -4, 0);
  get(100, -4, IPC_NOWAIT);
  get(100, LONG_MIN, 0);
  get(100, 0, IPC_NOWAIT);
  describe();
  give(4, "lost", 0);
  T(msgrcv(id, edge() - 10, 100, 0, 0));
  get(100, 0, IPC_NOWAIT);
}

static void full(void) {
  struct msqid_ds ds;
  pid_t child;
  memset(m.text, 'x', sizeof m.text);
  m.kind = 1;
  T(msgsnd(id, &m, 8192, IPC_NOWAIT));
  T(msgsnd(id, &m, 8192, IPC_NOWAIT));
  T(msgsnd(id, &m, 1, IPC_NOWAIT));
  T(msgsnd(id, &m, 0, IPC_NOWAIT));
  if (!(child = begin())) _exit(give(9, "it waited", 0) ? errno : 0);
  asleep(child);
  T(msgrcv(id, &m, 0, 1, IPC_NOWAIT | MSG_NOERROR));
  end(child);
  T(msgrcv(id, &m, 8192, 9, 0));
  T(msgctl(id, IPC_STAT, &ds));
  ds.msg_qbytes = 3;
  T(msgctl(id, IPC_SET, &ds));
  T(give(1, "a", IPC_NOWAIT));
  while (msgrcv(id, &m, 8192, 0, IPC_NOWAIT) >= 0);
  for (int i = 0; i < 5; i++) T(msgsnd(id, &m, 0, IPC_NOWAIT));
  while (msgrcv(id, &m, 8192, 0, IPC_NOWAIT) >= 0);
  T(give(1, "four", IPC_NOWAIT));
  if (!(child = begin())) _exit(give(9, "four", 0) ? errno : 0);
  asleep(child);
  ds.msg_qbytes = 16384;
  T(msgctl(id, IPC_SET, &ds));
  end(child);
  get(100, 0, 0);
}

static void waiting(void) {
  pid_t a, b, c;
  struct msqid_ds ds;
  if (!(a = begin())) _exit(msgrcv(id, &m, 100, 5, 0));
  asleep(a);
  if (!(b = begin())) _exit(msgrcv(id, &m, 2, 0, 0) < 0 ? errno : 99);
  asleep(b);
  if (!(c = begin())) _exit(msgrcv(id, &m, 100, -2, 0));
  asleep(c);
  give(2, "for the third", 0);
  end(b);
  end(c);
  give(5, "five", 0);
  end(a);
  describe();
  struct sigaction action = {.sa_handler = handler, .sa_flags = SA_RESTART};
  sigaction(SIGALRM, &action, 0);
  a = signal_asleep(SIGALRM);
  T(msgrcv(id, &m, 100, 0, 0));
  end(a);
  printf("     %s\n", reached);
  if (!(a = begin())) _exit(msgrcv(id, &m, 100, 0, 0));
  asleep(a);
  kill(a, SIGSTOP);
  waitpid(a, 0, WUNTRACED);
  kill(a, SIGCONT);
  give(1, "goes on", 0);
  end(a);
  if (geteuid()) return;
  if (!(a = begin())) {
    setgid(65534);
    setuid(65534);
    T(give(1, "x", 0));
    T(msgrcv(id, &m, 100, 0, IPC_NOWAIT));
    T(msgctl(id, IPC_STAT, &ds));
    T(msgctl(id, IPC_RMID, 0));
    fflush(stdout);
    _exit(0);
  }
  end(a);
  msgctl(id, IPC_STAT, &ds);
  ds.msg_perm.mode = 0604;
  msgctl(id, IPC_SET, &ds);
  if (!(a = begin())) {
    setgid(65534);
    setuid(65534);
    _exit(msgrcv(id, &m, 100, 0, 0) < 0 ? errno : 0);
  }
  asleep(a);
  ds.msg_perm.mode = 0600; /* who waits may not any more */
  msgctl(id, IPC_SET, &ds);
  end(a);
}

static void removed(void) {
  struct msginfo info;
  pid_t a, b;
  m.kind = 1;
  msgsnd(id, &m, 8192, 0);
  msgsnd(id, &m, 8192, 0);
  if (!(a = begin())) _exit(msgrcv(id, &m, 100, 7, 0) < 0 ? errno : 0);
  if (!(b = begin())) _exit(give(1, "no room", 0) ? errno : 0);
  asleep(a);
  asleep(b);
  T(msgctl(id, IPC_RMID, 0));
  end(a);
  end(b);
  T(msgctl(id, IPC_RMID, 0));
  T(msgget(key, 0));
  T(msgctl(0, IPC_INFO, (void *)&info) >= 0);
  printf("     %d %d %d %d %d %d %d %d\n", info.msgpool, info.msgmap, info.msgmax, info.msgmnb, info.msgmni, info.msgssz,
         info.msgtql, info.msgseg);
}

int main(void) {
  setvbuf(stdout, 0, _IOFBF, 1 << 16);
  key = 0x4c000000 + getpid();
  int old = msgget(key, 0);
  if (old >= 0) msgctl(old, IPC_RMID, 0);
  wrong_arguments();
  kinds();
  full();
  waiting();
  removed();
  return 0;
}

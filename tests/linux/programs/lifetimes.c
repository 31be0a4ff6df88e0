#include "check.h"
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>

/* What ends with a thread, an exec or a failed clone, and what does not. */

static const char *self;
static char stack[65536] __attribute__((aligned(16)));
static volatile int *shared;

static void report(const char *what, int ok) { printf("     %s: %s\n", what, ok ? "yes" : "NO"); }

static void thread_local_storage(void) {
  T(S(clone, CLONE_SETTLS | SIGCHLD, 0, 0, 0, 1UL << 47));
  T(S(clone, CLONE_SETTLS | SIGCHLD, 0, 0, 0, 0x7ffffffff000));
  T(S(clone, CLONE_SETTLS | SIGCHLD, 0, 0, 0, 0x8000000000000000));
  T(waitpid(-1, 0, WNOHANG | __WALL));
}

static int executes(void *arg) {
  execl(self, self, arg, (char *)0);
  _exit(9);
}

/* exec makes a child an ordinary one: its end is told by SIGCHLD. */
static void exit_signal(void) {
  int s;
  fflush(stdout);
  pid_t a = clone(executes, stack + sizeof stack, SIGUSR1, "nothing");
  pid_t got;
  while ((got = waitpid(a, &s, WNOHANG)) == -1 && errno == ECHILD) usleep(1000); /* until it has executed */
  while (got == 0) got = waitpid(a, &s, 0);
  report("an ordinary child", got == a && WIFEXITED(s) && WEXITSTATUS(s) == 7);
}

/* Memory that a child shares is left at exec: the word with its number is cleared, and who waits there is woken. */
static void cleared(void) {
  static volatile int word = -1;
  pid_t a = clone(executes, stack + sizeof stack, CLONE_VM | CLONE_CHILD_CLEARTID | SIGCHLD, "nothing", 0, 0, &word);
  while (word == -1) S(futex, &word, FUTEX_WAIT, -1, 0, 0, 0);
  report("cleared by exec", word == 0);
  T(waitpid(a, 0, 0) == a);
}

static void *vforks(void *arg) {
  if (vfork() == 0) {
    shared[2] = 1;
    while (!shared[0]) S(sched_yield);
    _exit(0);
  }
  shared[1] = 1;
  return 0;
}

/* Waits until the first thread of a process is in a state (T: stopped, Z: ended), whatever its other threads do. */
static void until_first_thread_is(pid_t pid, char wanted) {
  char path[64], name[64], state = 0;
  sprintf(path, "/proc/%d/task/%d/stat", pid, pid);
  while (state != wanted) {
    FILE *stat = fopen(path, "r");
    fscanf(stat, "%*d %63s %c", name, &state);
    fclose(stat);
    usleep(1000);
  }
}

/* A thread that waits in vfork while its process is stopped does not go on before the others do. */
static void stopped(void) {
  int s;
  pid_t a = fork();
  if (a == 0) {
    pthread_t t;
    pthread_create(&t, 0, vforks, 0);
    while (!shared[2]) S(sched_yield); /* until the thread waits in vfork */
    raise(SIGSTOP);
    pthread_join(t, 0);
    _exit(5);
  }
  until_first_thread_is(a, 'T');
  shared[0] = 1; /* not until then has every thread stopped */
  T(waitpid(a, &s, WUNTRACED) == a && WIFSTOPPED(s));
  usleep(20000);
  report("stays stopped", shared[1] == 0);
  kill(a, SIGCONT);
  T(waitpid(a, &s, 0) == a && WEXITSTATUS(s) == 5);
  report("goes on", shared[1] == 1);
}

static void *ends_last(void *arg) {
  until_first_thread_is(getpid(), 'Z');
  S(exit, 7);
  return 0;
}

/* A process ends as the last of its threads does. */
static void last_thread(void) {
  int s;
  pid_t a = fork();
  if (a == 0) {
    pthread_t t;
    pthread_create(&t, 0, ends_last, 0);
    S(exit, 3);
  }
  T(waitpid(a, &s, 0) == a && WEXITSTATUS(s) == 7);
}

static void *executes_too(void *arg) {
  usleep(20000);
  return (void *)(long)executes(arg);
}

static void *sleeps(void *arg) {
  pause();
  return 0;
}

/* exec in a thread ends the others, whether the first one has ended before or not; the number is the process's. */
static void exec_in_thread(int first_ends) {
  int s;
  char number[12];
  fflush(stdout);
  pid_t a = fork();
  if (a == 0) {
    pthread_t t;
    sprintf(number, "%d", getpid());
    pthread_create(&t, 0, sleeps, 0);
    pthread_create(&t, 0, executes_too, number);
    if (first_ends) S(exit, 3);
    pause();
  }
  T(waitpid(a, &s, 0) == a);
  report("same number", WIFEXITED(s) && WEXITSTATUS(s) == 8);
}

int main(int argc, char **argv) {
  setvbuf(stdout, 0, _IOFBF, 1 << 16);
  if (argc > 1 && !strcmp(argv[1], "nothing")) return 7;
  if (argc > 1) return atoi(argv[1]) == getpid() && getpid() == gettid() ? 8 : 1;
  self = argv[0];
  shared = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  thread_local_storage();
  exit_signal();
  cleared();
  stopped();
  last_thread();
  exec_in_thread(0);
  exec_in_thread(1);
  return 0;
}

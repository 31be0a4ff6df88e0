/* A session and its terminal: who may have it, who is stopped for using it, and what is left when the leader ends. */
#include "check.h"
#include <sys/prctl.h>
#include <termios.h>

#define COUNTED 32

static volatile int heard[COUNTED];
static int master, terminal, up[2];

static void count(int number) { heard[number]++; }

static void tell(const char *who) { write(up[1], who, 1); }

static void hear(void) {
  char c;
  read(up[0], &c, 1);
}

static void status_of(pid_t child) {
  int s = -1;
  int found = waitpid(child, &s, WUNTRACED) == child;
  printf("     found %d: %s %d\n", found, WIFSTOPPED(s) ? "stopped" : WIFEXITED(s) ? "exited" : "killed",
         WIFSTOPPED(s) ? WSTOPSIG(s) : WIFEXITED(s) ? WEXITSTATUS(s) : WTERMSIG(s));
}

static void open_pair(void) {
  master = posix_openpt(O_RDWR | O_NOCTTY);
  unlockpt(master);
  terminal = open(ptsname(master), O_RDWR | O_NOCTTY);
}

/* In the background: it is stopped when it reads, when it sets modes, and not any more once it ignores SIGTTOU. */
static void background(void) {
  struct termios modes;
  char line[8];
  tell("b");
  T(read(terminal, line, sizeof line));
  tcgetattr(terminal, &modes);
  T(tcsetpgrp(terminal, getppid()));
  T(tcsetattr(terminal, TCSANOW, &modes));
  T(write(terminal, "x", 1));
  signal(SIGTTOU, SIG_IGN);
  modes.c_lflag |= TOSTOP;
  T(tcsetattr(terminal, TCSANOW, &modes));
  T(write(terminal, "x", 1));
  fflush(stdout);
  _exit(5);
}

/* A terminal that a session has is not for another one. */
static void another(void) {
  fflush(stdout);
  pid_t child = fork();
  if (!child) {
    setsid();
    T(ioctl(terminal, TIOCSCTTY, 0));
    T(tcgetsid(terminal));
    fflush(stdout);
    _exit(0);
  }
  status_of(child);
}

static void leader(void) {
  T(tcgetsid(terminal));
  T(open("/dev/tty", O_RDWR));
  T(setsid() == getpid());
  T(ioctl(terminal, TIOCSCTTY, 0));
  T(ioctl(terminal, TIOCSCTTY, 0));
  T(tcgetsid(terminal) == getpid());
  T(tcgetpgrp(terminal) == getpid());
  another();
  T(open("/dev/tty", O_RDWR) >= 0);
  T(tcsetpgrp(terminal, 999999));
  T(tcsetpgrp(terminal, -1));
  fflush(stdout);
  pid_t child = fork();
  if (!child) {
    setpgid(0, 0);
    background();
  }
  hear();
  setpgid(child, child);
  status_of(child); /* it reads */
  T(tcsetpgrp(terminal, child));
  write(master, "k\n", 2);
  kill(child, SIGCONT);
  status_of(child); /* it has given the terminal back, and sets modes */
  T(tcgetpgrp(terminal) == getpid());
  T(tcsetpgrp(terminal, child));
  kill(child, SIGCONT);
  status_of(child);
  signal(SIGTTOU, SIG_IGN);
  T(tcsetpgrp(terminal, getpid()));
  for (int number = 1; number < COUNTED; number++)
    if (number != SIGCHLD && number != SIGTTOU) signal(number, count);
  int keys[] = {SIGINT, SIGQUIT, SIGTSTP, SIGUSR1, SIGKILL, 0, 65};
  for (int i = 0; i < 7; i++) T(ioctl(master, TIOCSIG, keys[i]));
  struct winsize size = {30, 90, 0, 0};
  T(ioctl(master, TIOCSWINSZ, &size));
  T(ioctl(master, TIOCSWINSZ, &size));
  write(master, "\003", 1);
  while (heard[SIGINT] < 1 || heard[SIGQUIT] < 1 || heard[SIGTSTP] < 1 || heard[SIGWINCH] < 1) usleep(1000);
  printf("     others %d %d\n", heard[SIGUSR1], heard[SIGHUP]);
  fflush(stdout);
  for (int front = 0; front < 2; front++) { /* two jobs are left: one in the background, then one in front */
    child = fork();
    if (!child) {
      setpgid(0, 0);
      heard[SIGHUP] = heard[SIGCONT] = 0;
      pid_t before = getppid();
      tell("j");
      while (getppid() == before) usleep(1000);
      while (front && !heard[SIGHUP]) usleep(1000);
      if (front) hear(); /* until the other one has said what it found */
      printf("     %d: hung up %d continued %d\n", front, heard[SIGHUP], heard[SIGCONT]);
      T(open("/dev/tty", O_RDWR));
      T(tcgetpgrp(terminal));
      T(write(terminal, "left", 4));
      T(isatty(terminal));
      fflush(stdout);
      if (!front) tell("d");
      _exit(front + 1);
    }
    hear();
    setpgid(child, child);
    if (!front) kill(child, SIGSTOP), waitpid(child, 0, WUNTRACED), kill(child, SIGCONT);
  }
  tcsetpgrp(terminal, child);
  _exit(7);
}

int main(void) {
  pipe(up);
  open_pair();
  prctl(PR_SET_CHILD_SUBREAPER, 1);
  fflush(stdout);
  pid_t child = fork();
  if (!child) leader();
  status_of(child);
  int left = 0, s;
  while (wait(&s) > 0) left += WEXITSTATUS(s);
  printf("     left %d\n", left);
  struct pollfd asked = {terminal, POLLIN};
  T(poll(&asked, 1, 0));
  T(tcgetsid(terminal));
  fflush(stdout);
  if (!(child = fork())) { /* the next session's */
    setsid();
    T(ioctl(terminal, TIOCSCTTY, 0));
    fflush(stdout);
    _exit(0);
  }
  status_of(child);
  if (!(child = fork())) { /* the keyboard is pulled out */
    close(master);
    setsid();
    ioctl(terminal, TIOCSCTTY, 0);
    heard[SIGHUP] = heard[SIGCONT] = 0;
    signal(SIGHUP, count), signal(SIGCONT, count);
    tell("q");
    while (!heard[SIGHUP] || !heard[SIGCONT]) usleep(1000);
    T(read(terminal, &s, 1));
    T(write(terminal, "x", 1));
    T(ioctl(terminal, TIOCGWINSZ, &s));
    fflush(stdout);
    _exit(0);
  }
  hear();
  close(master);
  status_of(child);
  return 0;
}

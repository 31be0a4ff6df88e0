/* Whom signals of files go to: O_ASYNC on pipes, sockets and terminals, leases and their breaking, F_NOTIFY. */
#include "check.h"
#include <linux/sockios.h>
#include <sys/inotify.h>
#include <sys/socket.h>
#include <sys/un.h>

#define WITH_INFO (SIGRTMIN + 3)

static sigset_t watched;

/* The signals of files that have come by now, in the order in which they are taken; the first may take its time. */
static void came_within(time_t seconds, const char *after) {
  siginfo_t info;
  struct timespec most = {seconds, 0};
  printf("     %s:", after);
  for (int number; (number = sigtimedwait(&watched, &info, &most)) > 0; most.tv_sec = 0) {
    if (number == SIGIO && info.si_code == SI_KERNEL)
      printf(" SIGIO");
    else
      printf(" %d(code %d band %lx fd %d)", number, info.si_code, info.si_band, info.si_fd);
  }
  printf("\n");
}

static void came(const char *after) { came_within(0, after); }
static void first_comes(const char *after) { came_within(100, after); }

static void nap(int ms) {
  struct timespec t = {ms / 1000, ms % 1000 * 1000000L};
  nanosleep(&t, 0);
}

static void own(int fd, int number) {
  fcntl(fd, F_SETOWN, getpid());
  if (number) fcntl(fd, F_SETSIG, number);
  fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_ASYNC);
}

static void owners(void) {
  int p[2], own_ids[2] = {-1, -1};
  struct f_owner_ex ex = {9, 9};
  pipe(p);
  T(fcntl(p[0], F_GETOWN));
  T(fcntl(p[0], F_GETOWN_EX, &ex));
  printf("     type %d pid %d\n", ex.type, ex.pid);
  T(fcntl(p[0], F_GETSIG));
  T(fcntl(p[0], F_SETSIG, 65));
  T(fcntl(p[0], F_SETSIG, -1));
  T(fcntl(p[0], F_SETSIG, 64));
  T(fcntl(p[0], F_GETSIG));
  T(fcntl(p[0], F_SETOWN, 3999999));
  T(fcntl(p[0], F_SETOWN, INT_MIN));
  T(fcntl(p[0], F_SETOWN, -3999999));
  T(fcntl(p[0], F_SETOWN, getpid()));
  T(fcntl(p[0], F_GETOWN) == getpid());
  T(fcntl(p[0], F_GETOWN_EX, &ex));
  printf("     type %d own %d\n", ex.type, ex.pid == getpid());
  T(syscall(SYS_fcntl, p[0], 17, own_ids));
  printf("     users %d %d\n", own_ids[0] == (int)getuid(), own_ids[1] == (int)geteuid());
  T(syscall(SYS_fcntl, p[0], 17, NOWHERE));
  setpgid(0, 0);
  T(fcntl(p[0], F_SETOWN, -getpgrp()));
  T(fcntl(p[0], F_GETOWN_EX, &ex));
  printf("     type %d own %d\n", ex.type, ex.pid == getpgrp());
  ex.type = F_OWNER_TID;
  T(fcntl(p[0], F_SETOWN_EX, &ex));
  T(fcntl(p[0], F_GETOWN) == getpid());
  ex.type = 3;
  T(fcntl(p[0], F_SETOWN_EX, &ex));
  ex.type = F_OWNER_PID, ex.pid = -1;
  T(fcntl(p[0], F_SETOWN_EX, &ex));
  T(fcntl(p[0], F_SETOWN_EX, NOWHERE));
  T(fcntl(p[0], F_SETOWN, 0));
  T(fcntl(p[0], F_GETOWN));
  int child = fork();
  if (!child) pause();
  fcntl(p[0], F_SETOWN, child);
  T(fcntl(p[0], F_GETOWN) == child);
  kill(child, SIGKILL);
  waitpid(child, 0, 0);
  T(fcntl(p[0], F_GETOWN)); /* nobody any more */
}

static void pipes(void) {
  int p[2];
  char c;
  pipe(p);
  own(p[0], 0);
  T(fcntl(p[0], F_GETFL) & O_ASYNC);
  write(p[1], "x", 1);
  came("a byte");
  T(fcntl(p[0], F_SETSIG, WITH_INFO));
  write(p[1], "y", 1);
  write(p[1], "z", 1);
  came("two more");
  read(p[0], &c, 1);
  came("one read");
  int again = dup(p[0]);
  close(p[0]);
  write(p[1], "z", 1);
  came("by the number that it had");
  fcntl(again, F_SETFL, fcntl(again, F_GETFL) & ~O_ASYNC);
  write(p[1], "z", 1);
  came("without O_ASYNC");
  int on = 1;
  T(ioctl(again, FIOASYNC, &on));
  fcntl(again, F_SETSIG, SIGCHLD);
  write(p[1], "z", 1);
  came("a signal with codes of its own");
  fcntl(again, F_SETSIG, WITH_INFO);
  close(p[1]);
  came("no writer");
  close(again);

  pipe(p);
  own(p[1], WITH_INFO);
  fcntl(p[1], F_SETFL, fcntl(p[1], F_GETFL) | O_NONBLOCK);
  static char much[65536];
  write(p[1], much, sizeof much);
  came("full");
  read(p[0], much, sizeof much);
  came("empty");
  close(p[0]);
  came("no reader");
  close(p[1]);
}

static void sockets(void) {
  int s[2];
  char text[10000];
  socketpair(AF_UNIX, SOCK_STREAM, 0, s);
  own(s[0], WITH_INFO);
  came("made");
  write(s[1], "x", 1);
  came("a byte");
  write(s[0], "x", 1);
  read(s[1], text, 1);
  came("the other has read, and nobody waited for room");
  fcntl(s[0], F_SETFL, fcntl(s[0], F_GETFL) | O_NONBLOCK);
  while (write(s[0], text, sizeof text) > 0) {}
  fcntl(s[1], F_SETFL, fcntl(s[1], F_GETFL) | O_NONBLOCK);
  while (read(s[1], text, sizeof text) > 0) {}
  came("room again");
  shutdown(s[1], SHUT_WR);
  came("half closed");
  close(s[1]);
  came("closed");
  int who = getpid();
  T(ioctl(s[0], SIOCSPGRP, &who));
  who = 0;
  T(ioctl(s[0], SIOCGPGRP, &who));
  T(who == getpid());
  T(ioctl(s[0], FIOGETOWN, &who));
  close(s[0]);

  struct sockaddr_un name = {AF_UNIX, "\0file signals"};
  int listener = socket(AF_UNIX, SOCK_STREAM, 0), client = socket(AF_UNIX, SOCK_STREAM, 0);
  T(bind(listener, (void *)&name, sizeof name) | listen(listener, 3));
  own(listener, WITH_INFO);
  T(connect(client, (void *)&name, sizeof name));
  came("somebody connects");
}

static void others(void) {
  int fd = open("plain", O_CREAT | O_RDWR, 0600), on = 1;
  T(fcntl(fd, F_SETFL, O_ASYNC));
  T(fcntl(fd, F_GETFL) & O_ASYNC);
  T(ioctl(fd, FIOASYNC, &on));
  on = 0;
  T(ioctl(fd, FIOASYNC, &on));
  close(fd);

  int in = inotify_init();
  own(in, WITH_INFO);
  inotify_add_watch(in, ".", IN_CREATE);
  close(open("another", O_CREAT | O_WRONLY, 0600));
  came("inotify");

  int master = posix_openpt(O_RDWR | O_NOCTTY);
  grantpt(master), unlockpt(master);
  int slave = open(ptsname(master), O_RDWR | O_NOCTTY);
  own(slave, WITH_INFO);
  write(master, "line\n", 5);
  first_comes("a line is typed");
}

static void nobody_else(void) {
  int fd = open("leased", O_CREAT | O_RDWR, 0644), reader;
  T(fcntl(fd, F_GETLEASE));
  T(fcntl(fd, F_SETLEASE, F_UNLCK));
  T(fcntl(fd, F_SETLEASE, 7));
  T(fcntl(fd, F_SETLEASE, F_RDLCK));
  T(fcntl(fd, F_SETLEASE, F_WRLCK));
  T(fcntl(fd, F_GETLEASE));
  T(fcntl(fd, F_GETOWN) == getpid());
  T(fcntl(fd, F_GETFL) & O_ASYNC);
  T(fcntl(fd, F_SETLEASE, F_UNLCK));
  T(fcntl(fd, F_GETOWN));
  T(fcntl(fd, F_GETFL) & O_ASYNC);
  reader = open("leased", O_RDONLY);
  T(fcntl(fd, F_SETLEASE, F_WRLCK));
  T(fcntl(reader, F_SETLEASE, F_RDLCK));
  close(fd);
  T(fcntl(reader, F_SETLEASE, F_RDLCK));
  T(fcntl(reader, F_SETLEASE, F_WRLCK));
  T(open("leased", O_RDONLY | O_NONBLOCK));
  T(fcntl(reader, F_SETLEASE, F_UNLCK));
  fd = open("leased", O_RDONLY);
  T(fcntl(reader, F_SETLEASE, F_WRLCK));
  T(fcntl(fd, F_SETLEASE, F_RDLCK));
  T(fcntl(fd, F_GETLEASE));
  close(reader);
  T(fcntl(fd, F_SETLEASE, F_WRLCK));
  close(fd);
  int directory = open(".", O_RDONLY), p[2];
  T(fcntl(directory, F_SETLEASE, F_RDLCK));
  pipe(p);
  T(fcntl(p[0], F_SETLEASE, F_RDLCK));
  T(fcntl(open("leased", O_PATH), F_GETLEASE));
}

/* A child opens, and says how it went; the parent answers the break. */
static void broken(int kind, int flags, int answer) {
  int fd = open("leased", kind == F_RDLCK ? O_RDONLY : O_RDWR), status;
  fcntl(fd, F_SETSIG, WITH_INFO);
  T(fcntl(fd, F_SETLEASE, kind));
  int child = fork();
  if (!child) {
    close(fd);
    int got = flags == -1 ? truncate("leased", 3) : open("leased", flags);
    _exit(got < 0 ? errno : 0);
  }
  siginfo_t info = {0}, end = {0};
  struct timespec brief = {0, 10000000};
  int number = -1;
  while (number < 0 && !end.si_pid) {
    waitid(P_PID, child, &end, WEXITED | WNOHANG | WNOWAIT);
    number = sigtimedwait(&watched, &info, &brief);
  }
  printf("     lease %d, open %o: signal %d code %d band %lx fd %d, is to be %d\n", kind, flags, number, info.si_code,
         info.si_band, info.si_fd == fd, fcntl(fd, F_GETLEASE));
  if (flags != -1 && flags & O_NONBLOCK) {
    waitpid(child, &status, 0);
    printf("     gone on with %s\n", strerrorname_np(WEXITSTATUS(status)));
  } else {
    nap(30);
    printf("     waits: %d\n", waitpid(child, &status, WNOHANG) == 0);
  }
  T(fcntl(fd, F_SETLEASE, answer));
  T(fcntl(fd, F_GETLEASE));
  if (answer == F_RDLCK && (flags == -1 || flags & 3)) T(fcntl(fd, F_SETLEASE, F_UNLCK));
  if (!(flags != -1 && flags & O_NONBLOCK)) {
    waitpid(child, &status, 0);
    printf("     gone on with %d\n", WEXITSTATUS(status));
  }
  close(fd);
  came("after that");
}

static void leases(void) {
  put("leased", "some text\n");
  broken(F_WRLCK, O_RDONLY, F_UNLCK);
  broken(F_RDLCK, O_RDONLY | O_TRUNC, F_UNLCK);
  show("leased");
  put("leased", "some text\n");
  broken(F_WRLCK, O_RDWR, F_UNLCK);
  broken(F_RDLCK, O_WRONLY, F_UNLCK);
  broken(F_RDLCK, O_RDWR | O_TRUNC, F_RDLCK);
  show("leased");
  put("leased", "some text\n");
  broken(F_WRLCK, O_RDONLY | O_NONBLOCK, F_UNLCK);
  broken(F_RDLCK, O_WRONLY | O_NONBLOCK | O_TRUNC, F_UNLCK);
  show("leased");
  broken(F_WRLCK, -1, F_UNLCK);
  broken(F_RDLCK, -1, F_RDLCK);
  show("leased");
  int first = open("leased", O_RDONLY), second = open("leased", O_RDONLY);
  T(fcntl(first, F_SETLEASE, F_RDLCK) | fcntl(second, F_SETLEASE, F_RDLCK));
  T(open("leased", O_WRONLY | O_NONBLOCK));
  came("both are told");
  T(open("leased", O_WRONLY | O_NONBLOCK));
  came("once");
  T(fcntl(first, F_SETLEASE, F_RDLCK)); /* of the other's, the end is near */
  close(second);
  T(fcntl(first, F_SETLEASE, F_RDLCK));
  T(fcntl(first, F_GETLEASE));
  T(open("leased", O_WRONLY | O_NONBLOCK));
  close(first);
  T(open("leased", O_WRONLY | O_NONBLOCK) > 0);
  int in_time = open("/proc/sys/fs/lease-break-time", O_RDONLY);
  T(in_time >= 0);
}

static void notices(void) {
  mkdir("watched", 0700), mkdir("watched/below", 0700);
  int fd = open("watched", O_RDONLY), file = open("leased", O_RDONLY);
  T(fcntl(file, F_NOTIFY, DN_CREATE));
  T(fcntl(file, F_NOTIFY, 0));
  T(fcntl(fd, F_SETSIG, WITH_INFO));
  T(fcntl(fd, F_NOTIFY, DN_CREATE));
  T(fcntl(fd, F_GETOWN) == getpid());
  close(open("watched/one", O_CREAT | O_WRONLY, 0600));
  came("a name");
  close(open("watched/two", O_CREAT | O_WRONLY, 0600));
  came("another name");
  T(fcntl(fd, F_NOTIFY, DN_MULTISHOT | DN_CREATE | DN_DELETE | DN_RENAME | DN_MODIFY | DN_ATTRIB | DN_ACCESS));
  rename("watched/one", "watched/three");
  came("renamed");
  rename("watched/three", "watched/below/three");
  came("moved away");
  rename("watched/below/three", "watched/four");
  came("moved here");
  put("watched/four", "text");
  came("written");
  int four = open("watched/four", O_RDONLY);
  char c;
  read(four, &c, 1);
  came("read");
  chmod("watched/four", 0644);
  came("another mode");
  chmod("watched", 0755);
  came("of the directory itself");
  close(open("watched/below/deep", O_CREAT | O_WRONLY, 0600));
  came("below");
  unlink("watched/two");
  came("deleted");
  T(fcntl(fd, F_NOTIFY, 0));
  unlink("watched/four");
  came("no more");
}

static const struct {
  const char *name;
  void (*run)(void);
} parts[] = {{"owners", owners}, {"pipes", pipes},   {"sockets", sockets}, {"others", others},
             {"kinds", nobody_else}, {"leases", leases}, {"notices", notices}};

int main(int count, char **words) {
  setvbuf(stdout, 0, _IONBF, 0);
  sigemptyset(&watched);
  sigaddset(&watched, SIGIO), sigaddset(&watched, WITH_INFO), sigaddset(&watched, SIGCHLD);
  sigprocmask(SIG_BLOCK, &watched, 0);
  sigdelset(&watched, SIGCHLD); /* children end by themselves */
  for (int i = 0; i < (int)(sizeof parts / sizeof *parts); i++) {
    if (count > 1 && strcmp(words[1], parts[i].name)) continue;
    printf("%s\n", parts[i].name);
    if (!fork()) {
      if (parts[i].run == pipes) sigaddset(&watched, SIGCHLD);
      parts[i].run();
      _exit(0);
    }
    wait(0);
  }
  return 0;
}

#include "check.h"
/* POSIX message queues, by their calls, their descriptors and their file system. */
#include <mqueue.h>
#include <pthread.h>

static char NAME[32], b[9000]; /* the name is the process's own: several run at once */
static const char *reached;
static siginfo_t told;

static void get(mqd_t q, size_t size) {
  unsigned priority = 77;
  memset(b, 0, sizeof b);
  errno = 0;
  long r = mq_receive(q, b, size, &priority);
  if (r < 0) printf("     get %zu: %s\n", size, strerrorname_np(errno));
  else printf("     get %zu: %ld bytes of priority %u, %s\n", size, r, priority, b);
}

static struct timespec in_ms(long ms) {
  struct timespec at;
  clock_gettime(CLOCK_REALTIME, &at);
  at.tv_nsec += ms * 1000000;
  at.tv_sec += at.tv_nsec / 1000000000;
  at.tv_nsec %= 1000000000;
  return at;
}

static void attributes(mqd_t q) {
  struct mq_attr a;
  long r = mq_getattr(q, &a);
  printf("     attributes %ld: flags %lo most %ld of %ld bytes, now %ld\n", r, a.mq_flags, a.mq_maxmsg, a.mq_msgsize,
         a.mq_curmsgs);
}

static void line(mqd_t q) {
  char text[100] = "";
  long r = pread(q, text, 90, 0);
  char *pid = strstr(text, "NOTIFY_PID:");
  if (pid) sprintf(pid + 11, atoi(pid + 11) ? (atoi(pid + 11) == getpid() ? "own" : "other") : "0");
  printf("     %ld: %s\n", r, text);
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

static void handler(int number, siginfo_t *info, void *context) {
  reached = "handled";
  told = *info;
}

static void in_thread(union sigval value) {
  b[0] = 0;
  reached = value.sival_ptr;
}

static void names(void) {
  struct mq_attr none = {0}, large = {0, 70000, 10, 0}, wide = {0, 1, 20000000, 0};
  char name[300];
  memset(name, 'n', 299);
  name[0] = '/';
  name[299] = 0;
  mq_unlink(NAME);
  T(mq_open(NAME, O_RDWR));
  T(S(mq_open, "", O_RDWR | O_CREAT, 0600, 0));
  T(S(mq_open, ".", O_RDWR | O_CREAT, 0600, 0));
  T(S(mq_open, "a/b", O_RDWR | O_CREAT, 0600, 0));
  T(S(mq_open, NOWHERE, O_RDWR | O_CREAT, 0600, 0));
  T(S(mq_open, NAME + 1, O_RDWR | O_CREAT, 0600, NOWHERE));
  T(mq_open(name, O_RDWR | O_CREAT, 0600, 0));
  T(mq_open(NAME, O_RDWR | O_CREAT, 0600, &none));
  T(mq_open(NAME, O_RDWR | O_CREAT, 0600, &large));
  T(mq_open(NAME, O_RDWR | O_CREAT, 0600, &wide));
  T(mq_unlink(NAME));
  T(S(mq_unlink, ""));
  T(S(mq_unlink, "a/b"));
  mqd_t q = mq_open(NAME, O_RDWR | O_CREAT, 0640, 0);
  T(fcntl(q, F_GETFD));
  attributes(q);
  T(mq_open(NAME, O_RDWR | O_CREAT | O_EXCL, 0600, 0));
  T(mq_open(NAME, O_RDWR | O_WRONLY));
  struct stat st;
  fstat(q, &st);
  printf("     mode %o links %d size %d blocks %d\n", st.st_mode, (int)st.st_nlink, (int)st.st_size, (int)st.st_blocks);
  char path[64], text[64] = "";
  sprintf(path, "/proc/self/fd/%d", q);
  T(readlink(path, text, 63));
  printf("     %s\n", text + (strncmp(text, NAME, strlen(NAME)) ? 0 : strlen(NAME)));
  T(mq_unlink(NAME));
  memset(text, 0, 64);
  T(readlink(path, text, 63));
  printf("     %s\n", text + (strncmp(text, NAME, strlen(NAME)) ? 0 : strlen(NAME)));
  T(mq_send(q, "nameless", 8, 0));
  get(q, 8192);
  T(mq_close(q));
}

static void messages(void) {
  struct mq_attr a = {O_NONBLOCK, 4, 16, 3}, odd = {1};
  mqd_t q = mq_open(NAME, O_RDWR | O_CREAT, 0600, &a), r = mq_open(NAME, O_RDONLY | O_NONBLOCK),
        w = mq_open(NAME, O_WRONLY);
  attributes(q);
  attributes(r);
  T(mq_send(r, "x", 1, 0));
  T(mq_receive(w, b, 16, 0));
  T(mq_receive(r, b, 16, 0));
  T(mq_receive(r, b, 15, 0));
  T(mq_send(w, "seventeen bytes ..", 17, 0));
  T(mq_send(w, "x", 1, 32768));
  T(mq_send(w, NOWHERE, 1, 0));
  T(mq_send(1, "x", 1, 0));
  T(mq_receive(1, b, 16, 0));
  T(mq_send(99, "x", 1, 0));
  T(mq_getattr(1, &a));
  T(mq_setattr(q, &odd, 0));
  struct pollfd poll_[] = {{r, POLLIN | POLLOUT}, {w, POLLIN | POLLOUT}};
  T(poll(poll_, 2, 0));
  printf("     %x %x\n", poll_[0].revents, poll_[1].revents);
  T(mq_send(w, "low", 3, 1));
  T(mq_send(w, "high", 4, 32767));
  T(mq_send(w, "low again", 9, 1));
  T(mq_send(w, "", 0, 5));
  T(poll(poll_, 2, 0));
  printf("     %x %x\n", poll_[0].revents, poll_[1].revents);
  line(q);
  T(write(q, "x", 1));
  T(lseek(q, 10, SEEK_SET));
  T(read(q, b, 8));
  attributes(q);
  a.mq_flags = O_NONBLOCK;
  T(mq_setattr(w, &a, 0));
  T(fcntl(w, F_GETFL) & O_NONBLOCK);
  T(mq_send(w, "no room", 7, 0));
  T(mq_receive(r, NOWHERE, 16, 0));
  for (int i = 0; i < 4; i++) get(r, 16);
  struct timespec soon = in_ms(30), past = {0, 0}, wrong = {0, 1000000000}, early = {-1, 0};
  T(mq_timedreceive(q, b, 16, 0, &soon));
  T(mq_timedreceive(q, b, 16, 0, &past));
  T(mq_timedreceive(q, b, 16, 0, &wrong));
  T(mq_timedreceive(q, b, 16, 0, &early));
  T(mq_timedsend(q, "x", 1, 0, &wrong));
  T(mq_timedsend(q, "x", 1, 0, &past));
  while (mq_send(w, "fill", 4, 2) == 0);
  soon = in_ms(30);
  T(mq_timedsend(q, "x", 1, 0, &soon));
  while (mq_receive(r, b, 16, 0) >= 0);
  mq_close(w);
  mq_close(r);
  mq_close(q);
}

static void waiting(void) {
  mqd_t q = mq_open(NAME, O_RDWR);
  pid_t a, c;
  int ep = epoll_create1(0);
  struct epoll_event want = {.events = EPOLLIN | EPOLLOUT | EPOLLET}, got;
  epoll_ctl(ep, EPOLL_CTL_ADD, q, &want);
  T(epoll_wait(ep, &got, 1, 0));
  T(epoll_wait(ep, &got, 1, 0));
  if (!(a = begin())) _exit(mq_receive(q, b, 16, 0));
  asleep(a);
  T(mq_send(q, "four", 4, 3));
  end(a);
  attributes(q);
  T(mq_send(q, "x", 1, 0));
  T(epoll_wait(ep, &got, 1, 0));
  printf("     %x\n", got.events);
  while (mq_timedsend(q, "y", 1, 1, &(struct timespec){0, 0}) == 0);
  if (!(a = begin())) _exit(mq_send(q, "first", 5, 2) ? errno : 0);
  asleep(a);
  if (!(c = begin())) _exit(mq_send(q, "second", 6, 2) ? errno : 0);
  asleep(c);
  get(q, 16);
  end(a);
  get(q, 16);
  end(c);
  for (int i = 0; i < 4; i++) get(q, 16);
  struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO};
  sigaction(SIGALRM, &action, 0);
  a = signal_asleep(SIGALRM);
  T(mq_receive(q, b, 16, 0));
  end(a);
  printf("     %s\n", reached);
  action.sa_flags = SA_SIGINFO | SA_RESTART;
  sigaction(SIGALRM, &action, 0);
  a = signal_asleep(SIGALRM);
  struct timespec limit = in_ms(100);
  T(mq_timedreceive(q, b, 16, 0, &limit));
  end(a);
  if (!(a = begin())) _exit(mq_receive(q, b, 16, 0));
  asleep(a);
  mq_unlink(NAME); /* disturbs nobody */
  mq_send(q, "there", 5, 0);
  end(a);
  mq_close(q);
}

static void notified(void) {
  struct mq_attr a = {0, 4, 16, 0};
  mqd_t q = mq_open(NAME, O_RDWR | O_CREAT, 0600, &a);
  struct sigevent e = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1, .sigev_value.sival_int = 42};
  struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO};
  pid_t child;
  sigaction(SIGUSR1, &action, 0);
  reached = "nobody";
  T(S(mq_notify, q, NOWHERE));
  T(mq_notify(1, &e));
  e.sigev_signo = 65;
  T(mq_notify(q, &e));
  e.sigev_notify = 17;
  T(mq_notify(q, &e));
  e.sigev_signo = SIGUSR1;
  e.sigev_notify = SIGEV_SIGNAL;
  T(mq_notify(q, 0));
  T(mq_notify(q, &e));
  T(mq_notify(q, &e));
  line(q);
  if (!(child = begin())) {
    T(mq_notify(q, &e));
    T(mq_notify(q, 0));
    line(q);
    T(mq_send(q, "told", 4, 0));
    fflush(stdout);
    _exit(0);
  }
  end(child);
  printf("     %s: signal %d code %d value %d from the child %d, user %d\n", reached, told.si_signo, told.si_code,
         told.si_value.sival_int, told.si_pid == child, told.si_uid == getuid());
  line(q);
  reached = "nobody";
  T(mq_notify(q, &e));
  T(mq_send(q, "not empty", 9, 0));
  printf("     %s\n", reached);
  get(q, 16);
  get(q, 16);
  if (!(child = begin())) {
    alarm(5);
    _exit(mq_receive(q, b, 16, 0));
  }
  asleep(child);
  T(mq_send(q, "somebody waits", 14, 0));
  end(child);
  printf("     %s\n", reached);
  mqd_t other = dup(q);
  T(mq_close(other)); /* whichever descriptor it is */
  T(mq_send(q, "nobody is told", 14, 0));
  printf("     %s\n", reached);
  get(q, 16);
  e.sigev_notify = SIGEV_NONE;
  T(mq_notify(q, &e));
  line(q);
  T(mq_send(q, "nothing", 7, 0));
  line(q);
  get(q, 16);
  struct sigevent thread = {.sigev_notify = SIGEV_THREAD, .sigev_value.sival_ptr = "a thread",
                            .sigev_notify_function = in_thread};
  T(mq_notify(q, &thread));
  T(mq_send(q, "thread", 6, 0));
  while (reached[0] != 'a') usleep(2000);
  printf("     %s\n", reached);
  struct sigevent raw = {.sigev_notify = SIGEV_THREAD, .sigev_signo = 1};
  char cookie[32] = {0};
  raw.sigev_value.sival_ptr = cookie;
  T(S(mq_notify, q, &raw));
  raw.sigev_signo = 99;
  T(S(mq_notify, q, &raw));
  raw.sigev_value.sival_ptr = NOWHERE;
  T(S(mq_notify, q, &raw));
  mq_close(q);
  mq_unlink(NAME);
}

static void limits(void) {
  struct mq_attr a = {0, 10, 8192, 0};
  struct rlimit limit = {200000, 200000};
  mqd_t q[4];
  char name[4][32];
  pid_t child;
  if (geteuid()) return;
  if (!(child = begin())) {
    setrlimit(RLIMIT_MSGQUEUE, &limit);
    setgid(65534);
    setuid(100000 + getpid()); /* whose queues are nobody else's */
    for (int i = 0; i < 4; i++) {
      sprintf(name[i], "%s%d", NAME, i);
      T((q[i] = mq_open(name[i], O_RDWR | O_CREAT, 0600, &a)) < 0);
    }
    T(errno == EMFILE);
    mq_unlink(name[0]);
    T(mq_open(name[2], O_RDWR | O_CREAT, 0600, &a) < 0);
    mq_close(q[0]);
    T(mq_open(name[2], O_RDWR | O_CREAT, 0600, &a) < 0);
    a.mq_maxmsg = 11;
    T(mq_open(name[3], O_RDWR | O_CREAT, 0600, &a));
    a.mq_maxmsg = 1;
    a.mq_msgsize = 8193;
    T(mq_open(name[3], O_RDWR | O_CREAT, 0600, &a));
    mq_unlink(name[1]);
    mq_unlink(name[2]);
    fflush(stdout);
    _exit(0);
  }
  end(child);
  q[0] = mq_open(NAME, O_RDWR | O_CREAT, 0604, 0);
  if (!(child = begin())) {
    setgid(65534);
    setuid(65534);
    T(mq_open(NAME, O_RDONLY) >= 0);
    T(mq_open(NAME, O_RDWR));
    T(mq_unlink(NAME));
    fflush(stdout);
    _exit(0);
  }
  end(child);
  mq_unlink(NAME);
}

int main(void) {
  setvbuf(stdout, 0, _IOFBF, 1 << 16);
  sprintf(NAME, "/loadstone-%08d", getpid());
  names();
  messages();
  waiting();
  notified();
  limits();
  return 0;
}

#include "check.h"

/* A thousand calls on three pipes and a file, chosen at random: what moves, and how full each pipe is afterwards. */

static unsigned state = 12345;

static unsigned next(unsigned bound) {
  state = state * 1103515245 + 12345;
  return (state >> 16) % bound;
}

static char buffer[300000];
static const int sizes[] = {1, 100, 1000, 4095, 4096, 4097, 6000, 20000, 70000, 200000};

static int size(void) { return sizes[next(sizeof sizes / sizeof *sizes)]; }

static void result(const char *what, long n) {
  if (n < 0)
    printf("%s %s\n", what, strerrorname_np(errno));
  else
    printf("%s %ld\n", what, n);
}

static unsigned sum(long n) {
  unsigned s = 0;
  for (long i = 0; i < n; i++) s = s * 31 + (unsigned char)buffer[i];
  return s;
}

int main(void) {
  /* What goes out goes to another file: Linux lets a pipe have the very pages of the one that comes in. */
  int p[3][2], file = open("file", O_RDWR | O_CREAT, 0600), other = open("other", O_RDWR | O_CREAT, 0600);
  char *memory = mmap(0, 400000, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  for (int i = 0; i < 400000; i++) memory[i] = i * 7 % 251;
  T(write(file, memory, 150000));
  for (int i = 0; i < 3; i++) pipe2(p[i], O_NONBLOCK);
  T(splice(file, 0, file, 0, 1, 0));
  T(splice(p[0][0], 0, p[0][1], 0, 1, 0));
  T(splice(p[0][1], 0, p[1][1], 0, 1, 0));
  T(splice(p[0][0], 0, p[1][1], 0, 0, 99));
  T(splice(p[0][0], 0, p[1][1], 0, 1, 99));
  T(splice(p[0][0], NOWHERE, p[1][1], 0, 1, 0));
  T(splice(file, NOWHERE, p[1][1], 0, 1, 0));
  T(tee(file, p[1][1], 1, 0));
  T(tee(p[0][0], p[0][1], 1, 0));
  T(vmsplice(file, 0, 0, 0));
  struct iovec bad = {NOWHERE, 10};
  T(vmsplice(p[0][1], &bad, 1, 0));
  for (int i = 0; i < 1000; i++) {
    int a = next(3), b = next(3), n = size();
    loff_t at = next(160000);
    switch (next(10)) {
    case 0: result("write", write(p[a][1], memory + next(9), n)); break;
    case 1:
    case 2: {
      long got = read(p[a][0], buffer, n);
      result("read", got);
      printf("     %u\n", sum(got));
      break;
    }
    case 3:
    case 4: result("move", splice(p[a][0], 0, p[b][1], 0, n, 0)); break;
    case 5: result("tee", tee(p[a][0], p[b][1], n, 0)); break;
    case 6:
      result("in", splice(file, &at, p[a][1], 0, n, 0));
      printf("     %ld\n", (long)at);
      break;
    case 7:
      result("out", splice(p[a][0], 0, other, &at, n, 0));
      printf("     %ld\n", (long)at);
      break;
    case 8: {
      struct iovec v[2] = {{memory + next(5000), n}, {memory + next(9000), size()}};
      result("memory", vmsplice(p[a][1], v, 2, SPLICE_F_NONBLOCK));
      break;
    }
    case 9: result("send", sendfile(p[a][1], file, &at, n)); break;
    }
    for (int j = 0; j < 3; j++) {
      int there = 0;
      struct pollfd poll_[2] = {{p[j][0], POLLIN}, {p[j][1], POLLOUT}};
      poll(poll_, 2, 0);
      ioctl(p[j][0], FIONREAD, &there);
      printf(" %d/%x%x", there, poll_[0].revents, poll_[1].revents);
    }
    puts("");
  }
  close(p[0][0]);
  signal(SIGPIPE, SIG_IGN);
  T(splice(file, 0, p[0][1], 0, 10, 0));
  T(tee(p[1][0], p[0][1], 10, 0) < 0);
  pipe(p[0]);
  int odd[] = {epoll_create1(0), eventfd(3, 0), open(".", O_RDONLY)}; /* without splice_read and splice_write */
  for (int i = 0; i < 3; i++) {
    T(splice(odd[i], 0, p[0][1], 0, 8, 0));
    T(splice(p[0][0], 0, odd[i], 0, 8, 0));
  }
  return 0;
}

/* Scripts as execve meets them: whitespace, the end of the buffer, interpreters of interpreters, what cannot be run. */
#include "check.h"

static char *arguments[] = {"zero", "one", 0}, *environment[] = {"E=1", 0};

static void make(const char *path, const void *text, size_t size, int mode) {
  unlink(path);
  int fd = open(path, O_CREAT | O_WRONLY, 0700);
  if (write(fd, text, size) < 0) perror(path);
  close(fd);
  chmod(path, mode);
}

static void run(const char *path) {
  int status;
  fflush(stdout);
  if (!fork()) {
    execve(path, arguments, environment);
    printf("     %s\n", strerrorname_np(errno));
    fflush(stdout);
    _exit(99);
  }
  wait(&status);
  printf("     status %x\n", status);
}

#define SCRIPT(text)               \
  do {                             \
    printf("%4d %s\n", __LINE__, #text); \
    make("s", text, sizeof text - 1, 0700); \
    run("./s");                    \
  } while (0)

static void lines(void) {
  SCRIPT("#!/bin/echo\n");
  SCRIPT("#! \t /bin/echo a b\n");
  SCRIPT("#!/bin/echo  a  b  \n");
  SCRIPT("#!/bin/echo\ta\tb\t\n");
  SCRIPT("#!/bin/echo");
  SCRIPT("#!/bin/echo x ");
  SCRIPT("#!");
  SCRIPT("#! \n");
  SCRIPT("#!\n/bin/echo");
  SCRIPT("#!/bin/echo\r\n");
  SCRIPT("#!/bin/echo a\0b\n");
  SCRIPT("#!\0/bin/echo\n");
  SCRIPT(" #!/bin/echo\n");
  SCRIPT("");
  SCRIPT("#!/nonexistent\n");
  SCRIPT("#!/etc\n");
  SCRIPT("#!/etc/passwd\n");
  SCRIPT("#!echo\n");
  SCRIPT("#!./s\n");
  SCRIPT("#!/bin/echo\va\n");
  SCRIPT("#!/bin/echo \"a b\" # c\n");
}

/* The last byte of BINPRM_BUF_SIZE: of an argument, with and without a newline, and of a path after slashes or blanks. */
static void buffer(void) {
  char text[300];
  for (size_t size = 252; size < 260; size++)
    for (int kind = 0; kind < 4; kind++) {
      memset(text, "aa/ "[kind], sizeof text);
      memcpy(text, "#!", 2);
      if (kind < 2) memcpy(text + 2, "/bin/echo ", 10);
      else memcpy(text + size - 10, "/bin/echo", 9);
      if (kind != 1) text[size - 1] = '\n';
      printf("     %zu bytes, %d\n", size, kind);
      make("s", text, size, 0700);
      run("./s");
    }
}

static void nested(void) {
  char name[16], text[64];
  make("d0", "#!/bin/echo z\n", 14, 0700);
  for (int depth = 1; depth < 9; depth++) {
    sprintf(name, "./d%d", depth);
    sprintf(text, "#!./d%d x%d\n", depth - 1, depth);
    make(name, text, strlen(text), 0700);
    printf("     depth %d\n", depth);
    run(name);
  }
}

static void others(void) {
  make("s", "#!/bin/echo\n", 12, 0600);
  run("./s");
  make("s", "#!/bin/echo\n", 12, 0111);
  run("./s");
  run("/etc");
  run("./none");
  run("");
  run("s/x");
  symlink("loop", "loop");
  run("loop");
  make("s", "#!/bin/echo\n", 12, 0700);
  symlink("s", "link");
  run("./link");
  int fd = open("s", O_WRONLY);
  run("./s"); /* somebody could write to it */
  close(fd);
  run("./s");
}

int main(void) {
  lines();
  buffer();
  nested();
  others();
  fflush(stdout);
  return system("rm -f s link loop d?");
}

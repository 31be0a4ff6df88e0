/* execveat(2): what can be executed by descriptor and how it is then called, and every error.
 *
 * Each case runs in a child: the errno's name, or what the program that was started prints (its argv, AT_EXECFN, comm).
 * usage: execveat DIRECTORY      an empty directory to work in
 *        execveat show ...
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define EXECVE_CHECK 0x10000

static char *self;

static void start(const char *what, int fd, const char *path, int flags) {
  fflush(stdout);
  if (fork() == 0) {
    char *argv[] = {"zero", "show", (char *)what, NULL}, *envp[] = {"TEST=1", NULL};
    long answer = syscall(SYS_execveat, fd, path, argv, envp, flags);
    printf("%s: %s\n", what, answer ? strerrorname_np(errno) : "0");
    fflush(stdout);
    _exit(0);
  }
  wait(NULL);
}

static void make(const char *name, const char *text, int mode) {
  int fd = open(name, O_CREAT | O_WRONLY | O_TRUNC, 0700);
  write(fd, text, strlen(text));
  fchmod(fd, mode);
  close(fd);
}

static int show(int argc, char **argv) {
  char comm[32] = "";
  int fd = open("/proc/self/comm", O_RDONLY);
  comm[read(fd, comm, 31) - 1] = 0;
  printf("%s %s", argv[argc > 2 ? 2 : 0], argv[0]);
  for (int i = 1; i < argc; i++) printf(" %s", argv[i]);
  printf(" execfn=%s comm=%s\n", (char *)getauxval(AT_EXECFN), comm);
  return 0;
}

int main(int argc, char **argv) {
  if (argc > 1 && strcmp(argv[1], "show") == 0) return show(argc, argv);
  self = argv[0];
  if (chdir(argv[1])) return 1;
  char script[5000];
  snprintf(script, sizeof script, "#!/bin/sh\necho script \"$0\" $1 $2\n");
  make("script", script, 0755);
  make("plain", "not a program\n", 0755);
  make("closed", "#!/bin/sh\n", 0644);
  symlink(self, "link");
  symlink("script", "scriptlink");
  mkdir("dir", 0755);
  mkfifo("fifo", 0755);
  int directory = open(".", O_RDONLY), program = open(self, O_RDONLY), path = open(self, O_PATH);
  int closing = open("script", O_RDONLY | O_CLOEXEC), open_script = open("script", O_RDONLY);
  int closing_directory = open(".", O_RDONLY | O_CLOEXEC), closing_program = open(self, O_RDONLY | O_CLOEXEC);
  int link = open("link", O_PATH | O_NOFOLLOW), pipes[2], memory = memfd_create("memory name", 0);
  pipe(pipes);
  int source = open(self, O_RDONLY);
  char block[65536];
  for (int n; (n = read(source, block, sizeof block)) > 0;) write(memory, block, n);

  start("relative", directory, "link", 0);
  start("absolute", 99, self, 0);
  start("cwd", AT_FDCWD, "link", 0);
  start("empty", program, "", AT_EMPTY_PATH);
  start("empty-without-the-flag", program, "", 0);
  start("o-path", path, "", AT_EMPTY_PATH);
  start("memfd", memory, "", AT_EMPTY_PATH);
  start("close-on-exec", closing_program, "", AT_EMPTY_PATH);
  start("script", open_script, "", AT_EMPTY_PATH);
  start("script-close-on-exec", closing, "", AT_EMPTY_PATH);
  start("script-in-directory", directory, "script", 0);
  start("script-in-closing-directory", closing_directory, "script", 0);
  start("program-in-closing-directory", closing_directory, "link", 0);
  start("follow", directory, "link", 0);
  start("no-follow", directory, "link", AT_SYMLINK_NOFOLLOW);
  start("no-follow-plain-file", directory, "script", AT_SYMLINK_NOFOLLOW);
  start("no-follow-script-link", directory, "scriptlink", AT_SYMLINK_NOFOLLOW);
  start("a-link-itself", link, "", AT_EMPTY_PATH);
  start("not-executable", directory, "closed", 0);
  start("no-format", directory, "plain", 0);
  start("directory", directory, "dir", 0);
  start("directory-itself", directory, "", AT_EMPTY_PATH);
  start("cwd-itself", AT_FDCWD, "", AT_EMPTY_PATH);
  start("fifo", directory, "fifo", 0);
  start("pipe", pipes[0], "", AT_EMPTY_PATH);
  start("missing", directory, "missing", 0);
  start("no-descriptor", 77, "script", 0);
  start("no-descriptor-empty", 77, "", AT_EMPTY_PATH);
  start("not-a-directory", program, "script", 0);
  start("below-a-file", directory, "script/x", 0);
  start("no-path", directory, NULL, 0);
  start("unknown-flag", directory, "link", 4);
  start("check", directory, "link", EXECVE_CHECK);
  start("check-empty", program, "", AT_EMPTY_PATH | EXECVE_CHECK);
  start("check-not-executable", directory, "closed", EXECVE_CHECK);
  start("check-no-format", directory, "plain", EXECVE_CHECK);
  start("check-directory", directory, "dir", EXECVE_CHECK);
  return 0;
}

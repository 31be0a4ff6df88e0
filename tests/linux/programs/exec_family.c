/* The C library's exec family, each function in a child of its own, and what the program that it starts is given.
 *
 * usage: exec_family FUNCTION PROGRAM NAME      PROGRAM is a path, NAME is found in PATH
 *        exec_family show ...                   the program that is started: print argv, the environment, AT_EXECFN
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

static int show(int argc, char **argv) {
  for (int i = 0; i < argc; i++) printf("argv[%d]=%s\n", i, argv[i]);
  for (char **variable = environ; *variable; variable++)
    if (strncmp(*variable, "TEST", 4) == 0) puts(*variable);
  printf("execfn=%s\n", (char *)getauxval(AT_EXECFN));
  return 0;
}

int main(int argc, char **argv) {
  if (argc > 1 && strcmp(argv[1], "show") == 0) return show(argc, argv);
  const char *how = argv[1], *program = argv[2], *name = argv[3];
  char *vector[] = {"zero", "show", "two", NULL};
  char *environment[] = {"TEST=given", NULL};
  setenv("TEST", "inherited", 1);
  int pid, status;
  if (strcmp(how, "posix_spawn") == 0 || strcmp(how, "posix_spawnp") == 0) {
    int error = strcmp(how, "posix_spawn") == 0 ? posix_spawn(&pid, program, NULL, NULL, vector, environment)
                                               : posix_spawnp(&pid, name, NULL, NULL, vector, environment);
    if (error) return error;
  } else if ((pid = fork()) == 0) {
    if (strcmp(how, "execl") == 0) execl(program, "zero", "show", "two", NULL);
    if (strcmp(how, "execlp") == 0) execlp(name, "zero", "show", "two", NULL);
    if (strcmp(how, "execle") == 0) execle(program, "zero", "show", "two", NULL, environment);
    if (strcmp(how, "execv") == 0) execv(program, vector);
    if (strcmp(how, "execvp") == 0) execvp(name, vector);
    if (strcmp(how, "execvpe") == 0) execvpe(name, vector, environment);
    if (strcmp(how, "execve") == 0) execve(program, vector, environment);
    if (strcmp(how, "fexecve") == 0) fexecve(open(program, O_RDONLY | O_CLOEXEC), vector, environment);
    printf("%s: %s\n", how, strerror(errno));
    return 1;
  }
  waitpid(pid, &status, 0);
  printf("status %x\n", status);
  return 0;
}

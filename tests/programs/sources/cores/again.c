/* Executes itself, each time with one argument less and a longer environment. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

int main(int argc, char **argv, char **envp) {
    int count = 0;
    while (envp[count]) count++;
    printf("%d arguments, %d variables\n", argc, count);
    fflush(stdout);
    if (argc < 2) return count;
    setenv(argv[argc - 1], "set", 1);
    argv[argc - 1] = NULL;
    execv(argv[0], argv);
    return 99;
}

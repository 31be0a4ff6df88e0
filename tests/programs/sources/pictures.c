/* Prints the words at and above argc as the program itself sees them in main: address and value. */
#include <elf.h>
#include <stdio.h>

int main(int argc, char **argv, char **envp) {
    unsigned long *word = (unsigned long *)argv - 1, *end = (unsigned long *)envp;
    while (*end) end++;
    end++;
    while (end[0] != AT_NULL) end += 2;
    end += 2;
    printf("%d %p %p\n", argc, (void *)argv, (void *)envp);
    for (; word < end; word++) printf("%lx %lx\n", (unsigned long)word, *word);
    for (int i = 0; i < argc; i++) printf("%lx %s\n", (unsigned long)argv[i], argv[i]);
    for (int i = 0; envp[i]; i++) printf("%lx %s\n", (unsigned long)envp[i], envp[i]);
    return 0;
}

/* What main() and the auxiliary vector give; addresses only as far as they hold in every run. */
#include <elf.h>
#include <stdio.h>
#include <string.h>
#include <sys/auxv.h>
#include <unistd.h>

extern char **environ;

int main(int argc, char **argv, char **envp) {
    printf("argc %d\n", argc);
    for (int i = 0; i <= argc; i++) printf("argv[%d] %s\n", i, argv[i] ? argv[i] : "NULL");
    for (int i = 0; envp[i]; i++) printf("envp[%d] %s\n", i, envp[i]);
    printf("envp is environ %d, follows argv %d\n", envp == environ, envp == argv + argc + 1);
    unsigned long *word = (unsigned long *)envp;
    while (*word) word++;
    for (word++; word[0] != AT_NULL; word += 2) {
        switch (word[0]) {
        case AT_PAGESZ: case AT_CLKTCK: case AT_PHENT: case AT_PHNUM: case AT_FLAGS: case AT_UID: case AT_EUID:
        case AT_GID: case AT_EGID: case AT_SECURE: case 27: case 28:
            printf("auxv %lu = %lu\n", word[0], word[1]); break;
        case AT_EXECFN: case AT_PLATFORM:
            printf("auxv %lu = \"%s\"\n", word[0], (char *)word[1]); break;
        case AT_PHDR:
            printf("auxv %lu: first header has type %u\n", word[0], ((Elf64_Phdr *)word[1])->p_type); break;
        default:
            printf("auxv %lu\n", word[0]);
        }
    }
    unsigned char *random = (unsigned char *)getauxval(AT_RANDOM);
    int sum = 0;
    for (int i = 0; i < 16; i++) sum += random[i];
    printf("random bytes are %s\n", sum ? "there" : "missing");
    printf("strings are in order: %d\n", argv[0] + strlen(argv[0]) + 1 == (argc > 1 ? argv[1] : envp[0]));
    return 0;
}

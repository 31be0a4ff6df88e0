#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv) {
    printf("hello, %s: %d\n", argc > 1 ? argv[1] : "world", argc);
    fprintf(stderr, "to stderr\n");
    return argc > 2 ? atoi(argv[2]) : 0;
}

/* Make argv[1] system calls that do nothing. */
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(int argc, char **argv) {
    for (unsigned long n = strtoul(argv[1], 0, 0); n; n--) syscall(SYS_getppid);
    return 0;
}

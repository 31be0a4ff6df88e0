/* What a process can ask about itself and its machine. */
#define _GNU_SOURCE
#include <sched.h>
#include <stdio.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/utsname.h>
#include <unistd.h>

int main(void) {
    struct utsname name;
    struct rlimit limit;
    unsigned char bytes[64];
    char line[4096];
    uname(&name);
    getrlimit(RLIMIT_STACK, &limit);
    getrandom(bytes, sizeof bytes, 0);
    int sum = 0;
    for (int i = 0; i < 64; i++) sum += bytes[i];
    printf("%d %d %d %s %d %d\n", getpid(), getppid(), getuid(), name.machine, sum, sched_getcpu());
    FILE *maps = fopen("/proc/self/maps", "r");
    for (int n = 0; fgets(line, sizeof line, maps); n++) fputs(line, stdout);
    printf("%ld %ld\n", sysconf(_SC_PAGESIZE), sysconf(_SC_NPROCESSORS_ONLN));
    return 0;
}

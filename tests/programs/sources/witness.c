/* Everything a program can see of time, chance and its host: prints it all. argv[1]: a directory to list. */
#define _GNU_SOURCE
#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <sys/auxv.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/sysinfo.h>
#include <sys/time.h>
#include <sys/times.h>
#include <time.h>
#include <unistd.h>
#include <x86intrin.h>

static volatile int rang;
static void ring(int number) { rang = number; }

int main(int argc, char **argv) {
    static const clockid_t clocks[] = {CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_MONOTONIC_RAW, CLOCK_REALTIME_COARSE,
                                       CLOCK_MONOTONIC_COARSE, CLOCK_BOOTTIME, CLOCK_PROCESS_CPUTIME_ID, CLOCK_THREAD_CPUTIME_ID};
    unsigned processor, long_count = 0;
    unsigned char random[16];
    unsigned long first = __rdtsc(), second = __rdtscp(&processor);
    printf("tsc %lu %lu on %u\n", first, second, processor);
    for (unsigned i = 0; i < sizeof clocks / sizeof *clocks; i++) {
        struct timespec now;
        clock_gettime(clocks[i], &now);
        printf("clock %d: %ld.%09ld\n", clocks[i], (long)now.tv_sec, now.tv_nsec);
    }
    struct timeval of_day;
    gettimeofday(&of_day, NULL);
    printf("time %ld, %ld.%06ld, pid %d, parent %d, thread %d\n", (long)time(NULL), (long)of_day.tv_sec, (long)of_day.tv_usec,
           getpid(), getppid(), gettid());
    getrandom(random, sizeof random, 0);
    for (int i = 0; i < 16; i++) printf("%02x%02x%s", random[i], ((unsigned char *)getauxval(AT_RANDOM))[i], i < 15 ? "" : "\n");
    struct sysinfo system;
    sysinfo(&system);
    printf("uptime %ld, processes %d, clock ticks %s\n", system.uptime, system.procs, times(&(struct tms){0}) > 0 ? "some" : "none");
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    printf("used %ld.%06ld %ld, faults %ld %ld\n", (long)usage.ru_utime.tv_sec, (long)usage.ru_utime.tv_usec,
           (long)usage.ru_stime.tv_usec, usage.ru_minflt, usage.ru_majflt);
    signal(SIGVTALRM, ring);
    setitimer(ITIMER_VIRTUAL, &(struct itimerval){{0, 0}, {0, 20000}}, NULL);
    while (!rang) long_count++;
    printf("the timer rang after %u turns\n", long_count);
    DIR *directory = opendir(argv[1]);
    for (struct dirent *entry; (entry = readdir(directory));) {
        struct stat status;
        if (entry->d_name[0] == '.' && entry->d_name[1] == '.') continue;
        fstatat(dirfd(directory), entry->d_name, &status, 0);
        printf("%s %lu %lu %ld.%09ld %ld %ld\n", entry->d_name, (unsigned long)entry->d_ino, (unsigned long)status.st_ino,
               (long)status.st_mtim.tv_sec, status.st_mtim.tv_nsec, (long)status.st_atim.tv_sec, (long)status.st_ctim.tv_sec);
    }
    return 0;
}

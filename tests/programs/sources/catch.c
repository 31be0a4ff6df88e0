/* Waits for SIGINT and says so; "spin" as argument: without any system call. */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static volatile sig_atomic_t caught;
static void handler(int number) { caught = number; }

int main(int argc, char **argv) {
    struct sigaction action = {.sa_handler = handler};
    sigaction(SIGINT, &action, NULL);
    puts("ready");
    fflush(stdout);
    while (!caught) if (argc < 2) pause();
    printf("caught %d\n", caught);
    return 3;
}

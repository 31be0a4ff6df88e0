/* fork: what is shared until one writes, the order of wait, an exit status and a signal. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

int main(void) {
    static int data[5000];
    int *shared = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0), status;
    char *heap = malloc(20000);
    data[0] = heap[0] = 1;
    for (int child = 1; child < 4; child++) {
        if (fork() == 0) {
            data[0] += child;
            data[4000] = heap[9000] = child;
            shared[child] = data[0] + heap[0];
            if (child == 2) abort();
            _exit(child * 10);
        }
        wait(&status);
        printf("%d %d %d %d\n", status, shared[child], data[0], heap[9000]);
        data[0]++;
    }
    return data[4000];
}

/* Thread-local storage of the main thread, constructors, destructors and atexit: what PT_TLS and the C library set up. */
#include <stdio.h>
#include <stdlib.h>

static __thread int counter = 41;
static __thread char name[64] = "initial";
static __thread long zeroed[100];

static void leave(void) { printf("atexit %d\n", ++counter); }
__attribute__((constructor)) static void begin(void) { counter++; }
__attribute__((destructor)) static void end(void) { printf("destructor %d\n", ++counter); }

int main(void) {
    atexit(leave);
    long sum = 0;
    for (int i = 0; i < 100; i++) sum += zeroed[i];
    printf("%d %s %ld\n", counter, name, sum);
    return counter == 42 ? 7 : 1;
}

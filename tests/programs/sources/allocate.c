/* A small malloc moves the program break, a large one maps: shown by the process's own list of mappings, which is read
   and printed without stdio, so that no allocation but ours is seen. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void say(const char *text) { write(1, text, strlen(text)); }

static void check(const char *what, int holds) { say(what); say(holds ? ": yes\n" : ": no\n"); }

static void maps(const char *when) {
    static char buffer[65536];
    int file = open("/proc/self/maps", O_RDONLY);
    say("-- "); say(when); say("\n");
    for (long length; (length = read(file, buffer, sizeof buffer)) > 0;) write(1, buffer, length);
    close(file);
}

int main(void) {
    maps("start");
    char *before = sbrk(0);
    char *small = malloc(1000);
    memset(small, 1, 1000);
    char *after = sbrk(0);
    check("a small malloc moves the break", after > before);
    check("small is inside the heap", small >= before && small < after);
    maps("small");
    char *large = malloc(1 << 20);
    memset(large, 1, 1 << 20);
    check("a large malloc moves the break", (char *)sbrk(0) > after);
    check("large is outside the heap", large > after);
    maps("large");
    free(large);
    maps("freed");
    large = realloc(malloc(3 << 20), 40 << 20);
    large[39 << 20] = 1;
    maps("grown");
    for (int i = 0; i < 3000; i++) { char *p = malloc(i); if (p) memset(p, i, i); }
    maps("many");
    return 0;
}

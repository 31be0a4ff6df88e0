/* The string functions over page boundaries, with overlaps, to and from the heap. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(void) {
    char *buffer = malloc(40000), words[200];
    int count = 0;
    for (int i = 0; i < 40000; i++) buffer[i] = "abcdefg "[i * 7 % 8];
    buffer[39999] = 0;
    memmove(buffer + 5, buffer, 30000);
    memmove(buffer, buffer + 4091, 20000);
    memset(buffer + 25000, 'x', 9000);
    char *copy = strdup(buffer);
    for (char *word = strtok(copy, " "); word; word = strtok(NULL, " ")) count += strlen(word);
    snprintf(words, sizeof words, "%d %zu %d %td", count, strlen(buffer), strcmp(buffer, copy), strchr(buffer, 'x') - buffer);
    puts(words);
    puts(strstr(buffer, "xxx") ? "found" : "lost");
    copy = realloc(copy, 200000);
    memcpy(copy + 100000, buffer, 40000);
    return memcmp(copy + 100000, buffer, 40000) != 0;
}

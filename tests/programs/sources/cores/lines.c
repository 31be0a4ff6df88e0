/* Reads a file line by line, sorts the lines, formats them, and counts the words in a tree. */
#define _GNU_SOURCE
#include <search.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int compare(const void *a, const void *b) { return strcmp(a, b); }
static int compare_lines(const void *a, const void *b) { return strcmp(*(char **)a, *(char **)b); }

int main(void) {
    char *lines[300], *line = NULL;
    size_t room = 0, count = 0, words = 0;
    void *tree = NULL;
    FILE *file = fopen("lines", "w+");
    for (int i = 0; i < 300; i++) fprintf(file, "%d %x line %s\n", i * 7919 % 300, i, i % 3 ? "odd" : "third");
    rewind(file);
    while (getline(&line, &room, file) > 0) lines[count++] = strdup(line);
    qsort(lines, count, sizeof *lines, compare_lines);
    for (size_t i = 0; i < count; i += 50) printf("%5zu: %s", i, lines[i]);
    for (size_t i = 0; i < count; i++)
        for (char *word = strtok(lines[i], " \n"); word; word = strtok(NULL, " \n"))
            if (*(char **)tsearch(word, &tree, compare) == word) words++;
    printf("%zu lines, %zu words\n", count, words);
    remove("lines");
    return 0;
}

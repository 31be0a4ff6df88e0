/* Sorts an array that fills some pages, by qsort and by insertion into a list on the heap. */
#include <stdio.h>
#include <stdlib.h>

struct node { struct node *next; int value; char room[200]; };
static int compare(const void *a, const void *b) { return *(const int *)a - *(const int *)b; }

int main(void) {
    static int numbers[20000];
    unsigned state = 1;
    struct node *first = NULL;
    for (int i = 0; i < 20000; i++) numbers[i] = (state = state * 1103515245 + 12345) >> 16;
    qsort(numbers, 20000, sizeof *numbers, compare);
    for (int i = 0; i < 500; i++) {
        struct node *made = malloc(sizeof *made), **at = &first;
        made->value = numbers[i * 37 % 20000];
        while (*at && (*at)->value < made->value) at = &(*at)->next;
        made->next = *at;
        *at = made;
    }
    printf("%d %d %d\n", numbers[0], numbers[19999], first->next->value);
    return 0;
}

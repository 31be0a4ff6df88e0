/* Threads: a lock, a condition, thread-local storage, one that is joined and one that waits for another. */
#include <pthread.h>
#include <stdio.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static _Thread_local int own = 5;
static int turn;

static void *work(void *argument) {
    long number = (long)argument;
    pthread_mutex_lock(&lock);
    while (turn != number) pthread_cond_wait(&changed, &lock);
    own += number;
    turn++;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
    return (void *)(long)own;
}

int main(void) {
    pthread_t threads[4];
    void *result;
    for (long n = 3; n >= 0; n--) pthread_create(&threads[n], NULL, work, (void *)n);
    for (int n = 0; n < 4; n++) { pthread_join(threads[n], &result); printf("%ld ", (long)result); }
    printf("%d %d\n", turn, own);
    return 0;
}

#include <stdio.h>
#include <unistd.h>

/* Come back when a thread is in a state: 'S' where it sleeps in a system call, 'T' where it is stopped. */
static inline void until_state(pid_t process, pid_t thread, char wanted) {
  char path[64], state = 0;
  sprintf(path, "/proc/%d/task/%d/stat", process, thread);
  while (state != wanted) {
    usleep(1000);
    FILE *file = fopen(path, "r");
    fscanf(file, "%*d (%*[^)]) %c", &state);
    fclose(file);
  }
}

static inline void asleep(pid_t process) { until_state(process, process, 'S'); }
static inline void thread_asleep(pid_t thread) { until_state(getpid(), thread, 'S'); }

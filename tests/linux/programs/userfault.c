/* userfaultfd: who touches an absent page of registered memory waits until another thread has brought it. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE 4096UL
static int fd;
static char *area, *source;
static const char *err(long r) { return r < 0 ? strerrorname_np(errno) : "0"; }
static char *fresh(int pages) { return mmap(0, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); }

static int start(int flags, unsigned long features)
{
    struct uffdio_api api = {UFFD_API, features, 0};
    fd = syscall(SYS_userfaultfd, flags);
    int r = ioctl(fd, UFFDIO_API, &api);
    printf("api %s\n", err(r));
    return r;
}

static long reg(char *at, int pages, int mode)
{
    struct uffdio_register r = {{(unsigned long)at, pages * PAGE}, mode, 0};
    long result = ioctl(fd, UFFDIO_REGISTER, &r);
    int wanted = 1 << _UFFDIO_WAKE | 1 << _UFFDIO_COPY | 1 << _UFFDIO_ZEROPAGE;
    if (result == 0)
        printf("[ioctls %d] ", (r.ioctls & wanted) == (unsigned)wanted);
    return result;
}

static long copy(char *to, int pages, int mode, long *done)
{
    struct uffdio_copy c = {(unsigned long)to, (unsigned long)source, pages * PAGE, mode, 77};
    long r = ioctl(fd, UFFDIO_COPY, &c);
    *done = c.copy;
    return r;
}

static long zero(char *to, int pages, int mode)
{
    struct uffdio_zeropage z = {{(unsigned long)to, pages * PAGE}, mode, 0};
    return ioctl(fd, UFFDIO_ZEROPAGE, &z);
}

static long wake(char *at, int pages)
{
    struct uffdio_range r = {(unsigned long)at, pages * PAGE};
    return ioctl(fd, UFFDIO_WAKE, &r);
}

/* answers `count` faults, alternately by a copy and by a page of zeros */
static void *answers(void *count)
{
    struct uffd_msg m;
    struct pollfd p = {fd, POLLIN, 0};
    long results[8], done[8]; /* told at the end: who was woken may print first */
    for (long i = 0; i < (long)count; i++) {
        done[i] = 0;
        poll(&p, 1, -1);
        if (read(fd, &m, sizeof m) != sizeof m) {
            printf("read %s\n", strerrorname_np(errno));
            return 0;
        }
        printf("event %x, page %ld, flags %llx, thread %d\n", m.event, ((long)m.arg.pagefault.address - (long)area) / (long)PAGE,
               m.arg.pagefault.flags, m.arg.pagefault.feat.ptid != 0);
        char *page = (char *)(m.arg.pagefault.address & ~(PAGE - 1));
        memset(source, 'a' + i, PAGE);
        results[i] = i % 2 ? zero(page, 1, 0) : copy(page, 1, 0, &done[i]);
    }
    for (long i = 0; i < (long)count; i++)
        printf("%s %s %ld\n", i % 2 ? "zero" : "copy", err(results[i]), done[i]);
    return 0;
}

static void faults(unsigned long features)
{
    pthread_t t;
    char buffer[3 * PAGE];
    int ends[2];
    area = fresh(8);
    start(O_NONBLOCK | O_CLOEXEC, features);
    printf("register %s\n", err(reg(area, 8, UFFDIO_REGISTER_MODE_MISSING)));
    pthread_create(&t, 0, answers, (void *)6);
    printf("read %c\n", area[10]);
    printf("zero %d\n", area[PAGE]);
    area[2 * PAGE + 5] = 'x';
    printf("write %c%c\n", area[2 * PAGE + 5], area[2 * PAGE + 6]);
    /* the kernel touches the pages, for system calls */
    memset(buffer, 'k', sizeof buffer);
    pipe(ends);
    write(ends[1], buffer, 6000);
    printf("read(2) %zd\n", read(ends[0], area + 3 * PAGE, 6000));
    printf("%c%c\n", area[3 * PAGE], area[4 * PAGE + 100]);
    ssize_t written = write(ends[1], area + 5 * PAGE, 100);
    pthread_join(t, 0);
    printf("write(2) %zd\n", written);
    close(fd);
    printf("after close %d\n", area[7 * PAGE]);
    munmap(area, 8 * PAGE);
}

static sigjmp_buf back;
static void on_signal(int number, siginfo_t *info, void *context)
{
    (void)context;
    printf("signal %d code %d\n", number, info->si_code);
    siglongjmp(back, 1);
}

static void errors(void)
{
    struct uffdio_api wrong = {0xAB, 0, 0};
    struct uffd_msg m;
    long done;
    printf("flags %s\n", err(syscall(SYS_userfaultfd, 4)));
    fd = syscall(SYS_userfaultfd, O_NONBLOCK);
    printf("before the api: %s", err(wake(area, 1)));
    printf(" %s", err(read(fd, &m, sizeof m)));
    printf(" %s", err(ioctl(fd, UFFDIO_API, &wrong)));
    wrong.api = UFFD_API, wrong.features = 1UL << 60;
    printf(" %s\n", err(ioctl(fd, UFFDIO_API, &wrong)));
    start(O_NONBLOCK, 0);
    wrong.features = 0;
    printf("api again %s\n", err(ioctl(fd, UFFDIO_API, &wrong)));
    area = fresh(6);
    area[PAGE] = 1;
    printf("mode 0: %s\n", err(reg(area, 1, 0)));
    printf("not aligned: %s\n", err(reg(area + 1, 1, 1)));
    printf("nothing: %s\n", err(reg(area, 0, 1)));
    munmap(area + 5 * PAGE, PAGE);
    printf("a hole: %s\n", err(reg(area + 5 * PAGE, 1, 1)));
    printf("register %s\n", err(reg(area, 4, 1)));
    printf("again %s\n", err(reg(area, 4, 1)));
    printf("there: %s", err(copy(area + PAGE, 1, 0, &done)));
    printf(" %ld\n", done);
    printf("two, the second is there: %s", err(copy(area, 2, 0, &done)));
    printf(" %ld\n", done);
    printf("not registered: %s\n", err(copy(area + 4 * PAGE, 1, 0, &done)));
    printf("across the end: %s\n", err(copy(area + 3 * PAGE, 2, 0, &done)));
    printf("odd mode: %s\n", err(copy(area + 3 * PAGE, 1, 8, &done)));
    printf("zero: %s", err(zero(area + 2 * PAGE, 2, 1)));
    printf(" %s\n", err(zero(area + 2 * PAGE, 1, 0)));
    printf("wake %s", err(wake(area, 4)));
    printf(" %s\n", err(wake(area, 0)));
    printf("write %s, read %s\n", err(write(fd, &m, 8)), err(read(fd, &m, sizeof m)));
    printf("short read %s\n", err(read(fd, &m, 8)));
    printf("a tty's %s\n", err(ioctl(fd, 0x5401, &m)));
    int first = fd;
    start(O_NONBLOCK, 0);
    printf("another's: %s\n", err(reg(area, 1, 1)));
    close(fd);
    fd = first;
    /* fork: the child's memory is ordinary */
    munmap(area, 5 * PAGE);
    area = fresh(2);
    printf("register %s\n", err(reg(area, 2, 1)));
    if (fork() == 0)
        _exit(area[PAGE]);
    int status;
    wait(&status);
    printf("child %x\n", status);
    struct uffdio_range r = {(unsigned long)area, 2 * PAGE};
    printf("unregister %s\n", err(ioctl(fd, UFFDIO_UNREGISTER, &r)));
    printf("then %d\n", area[0]);
    close(fd);
    /* SIGBUS in place of waiting, and what the kernel's own accesses get */
    struct sigaction a = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_NODEFER};
    sigaction(SIGBUS, &a, 0);
    start(O_NONBLOCK, UFFD_FEATURE_SIGBUS);
    munmap(area, 2 * PAGE);
    area = fresh(2);
    reg(area, 2, 1);
    if (!sigsetjmp(back, 1))
        area[0] = 1;
    printf("copy %s\n", err(copy(area, 1, 0, &done)));
    printf("then %c\n", area[0]);
    printf("write(2): %s\n", err(write(fd, area + PAGE, 8)));
    int ends[2];
    pipe(ends);
    printf("write(2) to a pipe: %s\n", err(write(ends[1], area + PAGE, 8)));
    close(fd);
    start(O_NONBLOCK | 1 /* UFFD_USER_MODE_ONLY */, 0);
    munmap(area, 2 * PAGE);
    area = fresh(2);
    reg(area, 2, 1);
    printf("user only, write(2): %s\n", err(write(ends[1], area + PAGE, 8)));
}

static void *touches(void *at) { return (void *)(long)*(volatile char *)at; }

static void waiting(void)
{
    pthread_t t[3];
    struct uffd_msg m[4];
    void *got;
    long done;
    start(O_NONBLOCK, 0);
    area = fresh(4);
    reg(area, 4, 1);
    struct pollfd p = {fd, POLLIN, 0};
    printf("poll %d\n", poll(&p, 1, 0));
    for (int i = 0; i < 3; i++)
        pthread_create(&t[i], 0, touches, area + PAGE * (i > 1));
    memset(m, 0, sizeof m);
    for (done = 0; done < 3 * (long)sizeof *m; done += read(fd, (char *)m + done, sizeof m - done))
        poll(&p, 1, -1);
    printf("read %ld\n", done);
    printf("poll %d\n", poll(&p, 1, 0));
    memset(source, 'q', PAGE);
    printf("without waking: %s", err(copy(area, 2, UFFDIO_COPY_MODE_DONTWAKE, &done)));
    printf(" %ld\n", done);
    printf("wake %s\n", err(wake(area, 2)));
    for (int i = 0; i < 3; i++) {
        pthread_join(t[i], &got);
        printf("touched %c\n", (char)(long)got);
    }
    char *moved = mremap(area, 4 * PAGE, 4 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, fresh(4));
    printf("moved: %c %d\n", moved[0], moved[3 * PAGE]);
    close(fd);
}

int main(void)
{
    setvbuf(stdout, 0, _IOLBF, 0);
    source = fresh(8);
    memset(source, 's', 8 * PAGE);
    faults(0);
    faults(UFFD_FEATURE_THREAD_ID);
    errors();
    waiting();
    return 0;
}

/* Linked with -nostdlib -z noseparate-code: the file's first page is mapped twice, as code and as data. Waits (read of
   one byte from standard input) before its first write to the second, and after it. */
char data[64] __attribute__((section(".data"))) = "the same page of the file";
extern char __ehdr_start[];

static long call(long number, long a, long b, long c) {
    long result;
    __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
    return result;
}

/* No .bss: the kernel would clear its part of the page at exec, which is a write already. */
__attribute__((noinline)) void before_write(void) { char byte; call(0, 0, (long)&byte, 1); }
__attribute__((noinline)) void after_write(void) { char byte; call(0, 0, (long)&byte, 1); }

void _start(void) {
    long places[2] = {(long)__ehdr_start, (long)data};
    (void)*(volatile char *)__ehdr_start;
    (void)*(volatile char *)data;
    call(1, 1, (long)places, sizeof places);
    before_write();
    *(volatile char *)data = 'T';
    call(1, 1, (long)data, 1);
    after_write();
    call(60, 0, 0, 0);
}

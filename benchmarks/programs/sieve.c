/* A sieve over 5 MB, PASSES times, without a C library: the same file runs on bare Unicorn. */
#ifndef PASSES
#define PASSES 10
#endif
#define SIZE 5000000
static unsigned char composite[SIZE];

void _start(void) {
    unsigned count = 0;
    for (int pass = 0; pass < PASSES; pass++) {
        for (unsigned i = 0; i < SIZE; i++) composite[i] = 0;
        count = 0;
        for (unsigned i = 2; i < SIZE; i++) {
            if (composite[i]) continue;
            count++;
            for (unsigned long j = (unsigned long)i * i; j < SIZE; j += i) composite[j] = 1;
        }
    }
    __asm__ volatile("syscall" :: "a"(60L), "D"((long)(count % 251)) : "rcx", "r11");
    __builtin_unreachable();
}

/* CRC-32 of its own file, read by getc, by fread, and through a mapping. */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static uint32_t table[256];
static uint32_t update(uint32_t crc, unsigned char byte) { return table[(crc ^ byte) & 255] ^ crc >> 8; }

int main(int argc, char **argv) {
    unsigned char buffer[3000];
    uint32_t one = ~0u, two = ~0u, three = ~0u;
    struct stat status;
    for (uint32_t n = 0; n < 256; n++) {
        table[n] = n;
        for (int bit = 0; bit < 8; bit++) table[n] = table[n] & 1 ? 0xedb88320 ^ table[n] >> 1 : table[n] >> 1;
    }
    FILE *stream = fopen(argv[0], "r");
    for (int c; (c = getc(stream)) != EOF;) one = update(one, c);
    rewind(stream);
    for (size_t n; (n = fread(buffer, 1, sizeof buffer, stream)) > 0;)
        for (size_t i = 0; i < n; i++) two = update(two, buffer[i]);
    int fd = open(argv[0], O_RDONLY);
    fstat(fd, &status);
    unsigned char *file = mmap(0, status.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    for (long i = 0; i < status.st_size; i++) three = update(three, file[i]);
    printf("%d\n", one == two && two == three);
    return 0;
}

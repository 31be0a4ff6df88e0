#include "check.h"

#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x10
#endif
#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 8
#endif

int main(void) {
  int fd = memfd_create("plain", 0), sealed, dup_fd;
  char b[20000] = "";
  struct stat st;
  T(fcntl(fd, F_GET_SEALS));
  T(fcntl(fd, F_ADD_SEALS, F_SEAL_GROW));
  T(fcntl(0, F_GET_SEALS));
  T(fcntl(0, F_ADD_SEALS, F_SEAL_GROW));
  T(fstat(fd, &st));
  printf("     %o %ld\n", st.st_mode, (long)st.st_nlink);
  close(fd);
  fd = memfd_create("noexec", MFD_NOEXEC_SEAL);
  T(fcntl(fd, F_GET_SEALS));
  T(fstat(fd, &st));
  printf("     %o\n", st.st_mode);
  T(fchmod(fd, 0777));
  T(fchmod(fd, 0600));
  close(fd);
  T((fd = memfd_create("sealed", MFD_ALLOW_SEALING)) >= 0);
  T(fcntl(fd, F_GET_SEALS));
  T(ftruncate(fd, 6000));
  T(fcntl(fd, F_ADD_SEALS, 0x1000));
  T(fcntl(fd, F_ADD_SEALS, F_SEAL_GROW));
  T(fcntl(fd, F_GET_SEALS));
  T(ftruncate(fd, 7000));
  T(ftruncate(fd, 5000));
  T(pwrite(fd, b, 5000, 0));
  T(pwrite(fd, b, 5001, 0));
  T(pwrite(fd, b, 20000, 0));
  T(pwrite(fd, b, 100, 4950));
  T(pwrite(fd, b, 100, 9000));
  T(fallocate(fd, 0, 0, 5000));
  T(fallocate(fd, 0, 0, 9000));
  T(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK));
  T(ftruncate(fd, 4000));
  T(ftruncate(fd, 5000));
  T(open("/proc/self/fd/0", O_PATH) >= 0);
  char path[64];
  sprintf(path, "/proc/self/fd/%d", fd);
  T((dup_fd = open(path, O_RDONLY)) >= 0);
  T(fcntl(dup_fd, F_ADD_SEALS, F_SEAL_WRITE));
  char *map = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  T(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE));
  T(fcntl(fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE));
  map[0] = 'm';
  T(pread(fd, b, 1, 0));
  printf("     %c\n", b[0]);
  T(munmap(map, 4096));
  T(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE));
  T(write(fd, b, 1));
  T(write(fd, b, 0));
  T(mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) != MAP_FAILED);
  T((map = mmap(0, 4096, PROT_READ, MAP_SHARED, fd, 0)) == MAP_FAILED);
  T(mprotect(map, 4096, PROT_READ | PROT_WRITE));
  T((map = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0)) == MAP_FAILED);
  map[0] = 'x';
  T(fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL));
  T(fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL));
  T(fcntl(fd, F_GET_SEALS));
  return 0;
}

# needs: as ld
printf '.globl _start\n_start: mov $60,%%eax\nmov $9,%%edi\nsyscall\n' | as -o s.o - && ld -o s s.o && ./s; echo $?

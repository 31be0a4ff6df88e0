# needs: gcc
gcc -c hello.c && ar rcs l.a hello.o && nm l.a | grep -c ' T ' && gcc l.a -o h && ./h

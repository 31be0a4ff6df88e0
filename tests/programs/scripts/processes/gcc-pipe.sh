# needs: gcc
gcc -pipe -O2 -S -o - hello.c | grep -c main
gcc -E hello.c | tail -1

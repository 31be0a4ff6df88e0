# needs: gcc
gcc -o hello hello.c && ./hello
echo $?

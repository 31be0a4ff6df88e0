# needs: gcc
echo 'int main(void) { return x; }' > bad.c; gcc bad.c; echo $?

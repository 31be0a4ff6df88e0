no-such-program-here
echo $?
./numbers
echo $?
/
echo $?

(exit 3) & wait -n
echo $?

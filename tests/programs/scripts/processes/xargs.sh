seq 20 | xargs -n 4 echo
seq 6 | xargs -P 3 -n 2 echo | sort
echo 1 | xargs false
echo $?

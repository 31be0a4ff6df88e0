sleep 0.1 & p=$!
wait $p
echo $?
(exit 4) & wait $!
echo $?

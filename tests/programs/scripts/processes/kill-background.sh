sleep 100 & kill $!
wait $! 2>/dev/null
echo $?

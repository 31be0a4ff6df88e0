mkfifo a b
(read x < a
echo got-$x > b) & echo ping > a
cat b
wait

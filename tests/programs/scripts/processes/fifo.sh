mkfifo f
(sleep 0.05
echo via-fifo > f) & cat f
wait

seq 10 | tee >(wc -l > n) | tail -1
sleep 0.2
cat n

seq 10 | tee >(wc -l > n) | tail -1
until [ -s n ]; do sleep 0.01; done
cat n

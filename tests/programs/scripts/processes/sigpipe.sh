yes | head -2
echo ${PIPESTATUS[@]}
seq 1000000 | head -1

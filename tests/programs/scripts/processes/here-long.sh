x=$(seq 20000)
wc -c <<< "$x"

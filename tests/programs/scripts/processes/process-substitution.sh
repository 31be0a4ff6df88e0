diff <(seq 5) <(seq 2 6)
cat <(echo a) <(echo b)

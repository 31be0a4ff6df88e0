n=1; until [ $n -gt 6 ]; do case $n in 1|3) echo odd $n;; 2) echo two;; *) echo $n; esac; ((n++)); done

seq 30 | split -l 10 --filter='wc -l' -

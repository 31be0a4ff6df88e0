seq 1000 | cat | cat | cat | cat | cat | cat | cat | cat | cat | tail -1

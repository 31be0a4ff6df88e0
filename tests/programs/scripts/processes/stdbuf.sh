seq 3 | stdbuf -oL cat

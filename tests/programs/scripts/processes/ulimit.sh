(ulimit -n 20; ulimit -n; sh -c 'ulimit -n'); ulimit -S -c

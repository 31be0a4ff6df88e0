# needs: ps
ps -o comm= -p $$
(exit) & ps -o pid=,ppid= -p $$ | wc -l

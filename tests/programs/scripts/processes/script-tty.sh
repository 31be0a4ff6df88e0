script -qc 'test -t 0 && test -t 1 && stty -a | grep -c icanon; stty rows 30 cols 90; stty size; ls /dev/null' /dev/null < /dev/null

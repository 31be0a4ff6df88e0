for i in 1 2 3 4 5; do (sleep 0.$((6 - i)); exit $i) & done; wait; echo all $?

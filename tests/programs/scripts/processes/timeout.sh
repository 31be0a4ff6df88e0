timeout 0.1 sleep 10; echo $?; timeout 100 sh -c 'exit 3'; echo $?; { timeout -s KILL 0.1 sleep 10; echo $?; } 2>/dev/null

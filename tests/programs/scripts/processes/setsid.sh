setsid -w sh -c 'exit 5'; echo $?

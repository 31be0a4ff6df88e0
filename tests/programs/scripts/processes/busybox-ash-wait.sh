# needs: busybox
busybox ash -c '(sleep 0.05; exit 9) & wait $!; echo $?'

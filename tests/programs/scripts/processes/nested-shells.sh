# needs: busybox
bash -c 'dash -c "busybox sh -c \"echo nested; exit 5\""'; echo $?

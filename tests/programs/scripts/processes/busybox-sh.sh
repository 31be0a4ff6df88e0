# needs: busybox
busybox sh -c 'for i in 1 2 3; do busybox echo $i | busybox cat; done; busybox seq 9 | busybox tail -n1'

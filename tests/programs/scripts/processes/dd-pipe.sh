dd if=/dev/zero bs=4k count=100 2>/dev/null | dd bs=1000 2>/dev/null | wc -c

head -c 5000000 /dev/zero | tr '\0' x | wc -c; head -c 3000000 /dev/zero | sha256sum

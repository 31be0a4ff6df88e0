(exec /bin/echo replaced
echo never)
echo after

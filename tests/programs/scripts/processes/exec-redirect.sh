exec 3>log
echo to-log >&3
exec 3>&-
cat log

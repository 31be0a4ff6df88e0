/bin/false || /bin/echo or
/bin/true && /bin/echo and
/bin/false && /bin/echo no
echo $?

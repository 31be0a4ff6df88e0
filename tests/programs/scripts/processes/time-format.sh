TIMEFORMAT=ok
time /bin/true

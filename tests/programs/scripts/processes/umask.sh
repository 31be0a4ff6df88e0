umask 077
touch f
stat -c %a f
sh -c umask

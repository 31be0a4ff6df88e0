ulimit -s; umask; umask 077; umask -S

cd /usr/share/doc; set -- bas*; echo $#; set -- /etc/pass*; echo $@

(until grep -q '^State:.S' /proc/$$/status; do :; done; exit 3) & wait -n # a child that has ended before is no news
echo $?

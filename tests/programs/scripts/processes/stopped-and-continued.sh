(until grep -q '^State:.T' /proc/$$/status; do sleep 0.05; done; kill -CONT $$) &
kill -STOP $$
wait
echo continued

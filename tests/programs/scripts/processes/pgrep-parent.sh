# needs: pgrep
sleep 100 & until grep -qx sleep /proc/$!/comm; do sleep 0.01; done
pgrep -P $$ -x sleep | wc -l
kill $!

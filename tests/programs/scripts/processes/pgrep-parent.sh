# needs: pgrep
sleep 5 & sleep 0.1
pgrep -P $$ -x sleep | wc -l
kill $!

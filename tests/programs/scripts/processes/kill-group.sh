exec 2>/dev/null # bash says "Terminated" only where the job is gone before wait asks for it
set -m
(sleep 100 | sleep 100) & kill -- -$!
wait $!
echo $?

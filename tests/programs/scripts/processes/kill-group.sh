exec 2>/dev/null # bash says "Terminated" only where the job is gone before wait asks for it
set -m
mkfifo ready
exec 3<> ready
({ echo >&3; exec sleep 100; } | { echo >&3; exec sleep 100; }) & read <&3; read <&3 # all of the group are there
kill -- -$!
wait $!
echo $?

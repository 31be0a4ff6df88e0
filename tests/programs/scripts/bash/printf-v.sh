printf -v x "%(%Y)T" 0; echo $x; printf "%b" "tab\there\n"; printf "%q " "a b" "c'd"; echo

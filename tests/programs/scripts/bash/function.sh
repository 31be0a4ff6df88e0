f() { local x=$1; ((x <= 1)) && { r=1; return; }; f $((x - 1)); r=$((r * x)); }; f 20; echo $r

coproc cat
echo line >&${COPROC[1]}
read -r x <&${COPROC[0]}
echo got $x

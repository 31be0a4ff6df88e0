cd /nonexistent; type -t cd; type nothing; unset -v nope; readonly r=1; r=2; echo not reached

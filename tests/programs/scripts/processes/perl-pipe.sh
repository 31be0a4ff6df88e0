# needs: perl
perl -e 'pipe R, W; if (!fork) { close R; print W "x" x 100000; exit } close W; local $/; print length <R>'

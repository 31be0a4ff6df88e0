# needs: tclsh
echo 'puts [exec echo from tcl | tr a-z A-Z]; puts [catch {exec false}]' | tclsh

# needs: sqlite3
printf '.shell echo out\nselect 1+1;\n' | sqlite3

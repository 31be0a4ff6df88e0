# needs: bzip2
bzip2 -c numbers | bunzip2 | md5sum

s="path/to/file.tar.gz"; echo ${s##*/} ${s%.gz} ${s/to/from} ${s^^} ${#s} ${s:5:2} ${u:-default}

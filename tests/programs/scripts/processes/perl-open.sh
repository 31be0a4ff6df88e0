# needs: perl
perl -e 'open F, "seq 3|"; print reverse <F>; print `echo back`; system("exit 2"); print $? >> 8, "\n"'

sleep 5 & sleep 0.1; readlink /proc/$!/exe | sed 's,.*/,,'; cat /proc/$!/comm; kill $!

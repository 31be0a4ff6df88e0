sleep 100 & until grep -qx sleep /proc/$!/comm; do sleep 0.01; done
readlink /proc/$!/exe | sed 's,.*/,,'; cat /proc/$!/comm; kill $!

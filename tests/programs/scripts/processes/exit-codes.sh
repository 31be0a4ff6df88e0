for c in 0 1 2 126 127 200 255; do sh -c "exit $c"; echo $?; done

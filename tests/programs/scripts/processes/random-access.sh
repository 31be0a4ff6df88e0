for i in a b c; do echo $i > f.$i & done; wait; cat f.*; rm f.?; ls f.* 2>&1

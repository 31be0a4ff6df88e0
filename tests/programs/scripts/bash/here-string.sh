read -r a b <<< "first second third"; echo "$b,$a"

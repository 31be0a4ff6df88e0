a=(one two "three four"); a+=(five); a[9]=nine; echo ${#a[@]} "${a[2]}" ${!a[@]} "${a[@]:1:2}"

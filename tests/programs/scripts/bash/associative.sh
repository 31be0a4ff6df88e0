declare -A m=([x]=1 [y]=2); m[z]=3; for k in x y z; do echo $k=${m[$k]}; done; echo ${#m[@]}

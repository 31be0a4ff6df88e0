mapfile -t lines < /etc/passwd; echo ${#lines[@]}; echo ${lines[0]}

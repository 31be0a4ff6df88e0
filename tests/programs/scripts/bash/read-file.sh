x=$(</etc/hostname); while IFS=: read -r n _ u _; do echo $n $u; done < /etc/passwd; echo ${#x}

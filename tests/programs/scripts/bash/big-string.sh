s=x; for i in {1..16}; do s+=$s; done; echo ${#s} ${s:65530}

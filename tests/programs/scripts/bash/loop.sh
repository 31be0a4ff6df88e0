for i in {1..500}; do s=$((s + i * i)); done; echo $s

for i in 1 2 3; do (flock 9; echo in >> order; echo out >> order) 9> lock & done; wait; cat order

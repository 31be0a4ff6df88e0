i=0; while ((i < 2000)); do ((i += 3)); [[ $i == *7 ]] && continue; done; echo $i

echo kept > new-file; echo more >> new-file; mapfile -t l < new-file; echo ${#l[@]} ${l[1]}; echo *

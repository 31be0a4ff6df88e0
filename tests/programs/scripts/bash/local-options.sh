shopt -s nullglob; echo none*here; shopt -s extglob; [[ aaab == +(a)b ]] && echo matched

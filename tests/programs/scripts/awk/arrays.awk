{ for (i = 1; i <= NF; i++) n[$i]++ } END { print n["the"], length(n); exit 4 }

cat numbers | sort -n | uniq -c | sort -rn | head -5

gzip -c numbers | gunzip | cmp - numbers && zcat <(gzip -c words) | wc -l

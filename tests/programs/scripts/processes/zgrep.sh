gzip -k words
zgrep -c fox words.gz

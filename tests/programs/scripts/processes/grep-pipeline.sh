grep -o '[a-z]*' words | sort | uniq -c | sort -k1,1nr -k2 | head -4

awk 'BEGIN { system("echo from awk"); "date -u -d @0 +%Y" | getline y; print y; print "b\na" | "sort" }'

nohup echo kept 2>/dev/null
nice -n 5 nice

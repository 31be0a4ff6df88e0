sort --parallel=2 -S 1M numbers | md5sum

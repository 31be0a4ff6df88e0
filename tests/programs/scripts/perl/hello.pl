print "hello @ARGV\n"; exit 3

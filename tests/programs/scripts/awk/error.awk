BEGIN { print 1

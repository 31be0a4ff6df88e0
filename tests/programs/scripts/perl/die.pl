die "on purpose\n"

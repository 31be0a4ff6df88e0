open my $f, ">", "f" or die; print $f "line $_\n" for 1..100; close $f; print -s "f", "\n"

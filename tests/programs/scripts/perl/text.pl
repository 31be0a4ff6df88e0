my %n; while (<STDIN>) { $n{$_}++ for split } print "$_ $n{$_}\n" for sort keys %n

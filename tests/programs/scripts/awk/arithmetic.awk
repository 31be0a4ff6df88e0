BEGIN { for (i = 1; i <= 1000; i++) s += 1 / i; print s, exp(1), sin(1), int(-3.7), 2 ^ 31 }

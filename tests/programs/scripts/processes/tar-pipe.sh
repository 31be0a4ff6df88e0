tar cf - numbers words | (mkdir x && cd x && tar xf -) && cmp numbers x/numbers && ls x

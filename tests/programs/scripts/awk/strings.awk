BEGIN { s = "hello world"; gsub(/o/, "0", s); print toupper(s), substr(s, 3, 4), index(s, "w"), split(s, a, " ") }

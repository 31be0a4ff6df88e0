s = 'naïve ✓ 😀' * 3
print(ascii(s), len(s), s.encode('utf-8')[:10], s.upper().encode('unicode-escape'))

import json, re, math, hashlib, decimal, collections, itertools, functools, struct, zlib, bisect
print(json.dumps({'a': [1, 2.5, None, True], 'b': 'ä'}, sort_keys=True))
print(re.sub(r'(\d+)', r'<\1>', 'a1b22'))
print(math.pi, math.sin(1e6), math.gamma(5.5), math.fsum([0.1] * 10))
print(decimal.Decimal(1) / 7)
print(hashlib.sha256(b'x' * 100000).hexdigest())
print(zlib.crc32(b'hello' * 1000), len(zlib.compress(bytes(100000))))

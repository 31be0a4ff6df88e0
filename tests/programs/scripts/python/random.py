import random
r = random.Random(1)
print([r.random() for _ in range(5)])
print(len(os.urandom(16)) if (os := __import__('os')) else 0)

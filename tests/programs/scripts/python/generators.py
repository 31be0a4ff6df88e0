print(sum(x * x for x in range(20000) if x % 3))
print(sorted({str(i): i for i in range(50)})[:5])

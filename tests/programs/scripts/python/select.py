import os, select
r, w = os.pipe()
print(select.select([r], [w], [], 0)[1] == [w])
os.write(w, b'x')
p = select.poll()
p.register(r)
print(len(p.poll(0)))

import mmap
m = mmap.mmap(-1, 3 * 4096)
m[4090:4100] = b'0123456789'
print(m[4088:4102])
m.close()
f = open('/etc/passwd', 'rb')
m = mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ)
print(m.find(b'root'), len(m))

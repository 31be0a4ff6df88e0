def f():
    raise ValueError('on purpose')
f()

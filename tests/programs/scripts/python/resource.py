import resource
print(resource.getrlimit(resource.RLIMIT_STACK), resource.getpagesize())

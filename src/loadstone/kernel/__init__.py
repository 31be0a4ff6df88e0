"""What a kernel is without an ABI: processes, who runs and who waits; what calls mean is its personality's business.

- `process`: processes and tasks. `kernel.Kernel`: what those of one machine have in common.
- `scheduler` with `policies`, `cpus`, `waits`: who runs next, and for how long. `outside`: what the host sends then.
"""

"""The machine under the kernel: frames, page tables in them, and the CPU cores that walk those.

- `physical`, `paging`, `shootdown`: memory, page tables, and who is told when an entry changes.
- `core`: what a CPU core is. `engines` chooses `unicorn_core` or `kvm_core`; what belongs to one has its name in front.
- `*.s` is the source of machine code that modules here have as bytes; `assembling` makes it anew.
"""

"""Virtual memory: address spaces, what a page fault does, and the page cache.

- `address_space.AddressSpace`: a list of mappings (`vma_list`, `merge`) and a page table. A module each for the calls
  that change it: `mapping`, `protect`, `remap`, `advise`, `brk`, `fork`...
- `fault.resolve`: the page fault. `neighbours` and `fill_ahead`: the pages that come along.
- `page_cache`: pages of files, one frame each; a file is what `backing.Backing` says.
- `user`: the only doors to a program's memory for the kernel; `peek` is for observers.
"""

"""The guest's files: the host's tree, read-only, under an in-memory overlay; mounts, pipes, sockets, descriptors.

This room knows no ABI: nothing is packed here, flags and modes are the plain numbers of `flags` (x86-64 values), and
every error is a `LinuxError` with the errno the kernel would give. Paths are `str` with surrogateescape.

From a path to bytes:

- `vfs.Vfs`: the whole of it. Looking and opening are its own; `names.Names`, below it, makes, moves and removes names,
  and `namespace.Namespace`, below that, walks paths over mounts. What takes a path takes an `Origin(cwd, root, who)`
  too: the directory a relative path starts from (the process's, or a dirfd's), the root directory, and who asks.
  Without one the path starts at the namespace's root, and root asks.
- `location.Location`: a place in that tree, a mount and an entry in it. Compare two with `==`.
- `inode.Inode`: one file, with the attributes of stat(2) under their names; call `refresh()` before showing them.
  `regular.RegularFile` is what memory maps (`memory.backing.Backing`), and its `read_into` and `write_from` are the one
  way of file data. `attributes` and `extended`: who may change which attributes.
- `file.OpenFile`: an open file description; `open_files` has the kinds that file systems share. `file.WouldBlock` is
  raised when nothing can be done now, and says what to wait for. `file_table.FileTable`: the descriptors of a process.

File systems:

- `overlay` with `overlaid`, `overlay_files`, `overlay_directory`, `store`: the machine's root, over the tree of `host`.
  `passthrough`: what `--rw` hands over. `streams`: descriptors that the host gave us. `assemble` builds what the
  command line describes, `discard` counts what the host will not get.
- `tmpfs`, `union` with `union_directory` (overlayfs), `ext2` on the devices of `loop`: what the guest's root mounts.
  `mounting` changes the tree of mounts.
- `generated`: what /proc is made of, by those who mount it. `devices`, `devpts`: /dev. `memfd`: files without a name.

Between processes:

- `pipe` with its `ring`. `sockets.Socket` is what all sockets have in common; the kinds are `unix_sockets`,
  `tcp_sockets`, `udp_sockets` (with `inet_sockets`, `inet_ports`) and `netlink_sockets`; `socket_space` finds them.
- `locks` and `leases`; `watches`: who is told what is done to a file.
- `pty` with `pty_packets`: pseudo-terminals. `line_discipline` with `typed_lines` and `terminal_modes` is the way from
  the keys to the program, `terminal_output` the way back.
"""

"""The guest's files: the host's tree, read-only, under an in-memory overlay; mounts, pipes, devices, descriptors.

This room knows no ABI: nothing is packed here, flags and modes are the plain numbers of `vfs.flags` (x86-64
values), and every error is a `LinuxError` with the errno the kernel would give. Paths are `str` with
surrogateescape.

The pieces:

- `inode.Inode`: one file. Attributes, as stat(2) names them: `device inode mode uid gid nlink rdev size atime_ns
  mtime_ns ctime_ns blocks blksize`; call `refresh()` before showing them. Directories: `lookup(name)`, `entries()`
  -> `[(name, inode number, d_type)]` without `.` and `..`, `create/mkdir/symlink/mknod/link/unlink/rmdir/rename`.
  Links: `readlink()`; magic links also `follow()`. All: `truncate(size)`, `set_mode`, `set_owner`, `set_times`,
  `open(...)`.
- `regular.RegularFile(Inode)`: implements `memory.backing.Backing`; `read_into`, `write_from` are the one data
  path.
- `location.Location`: a place in the tree (mount and entry): `.inode`, `.path` as the guest sees it, `.host_path`
  (where the host has it, "" if it does not), `.deleted`. Compare two with `==`.
- `namespace.Namespace`: mounts and path resolution. `names.Names`: making, moving, removing names. `vfs.Vfs`: all.
  Every method takes an `Origin(cwd, root, who)`: the directory a relative path starts from (the process's, or a dirfd's
  `Location`), the root directory, and who asks (an object with `fsuid`, `fsgid`, `groups`). Without one the path starts
  at the namespace's root, and root asks:

      resolve(path, origin, *, follow=True, directory=False, empty=False) -> Location
      open(path, flags, mode=0, origin) -> OpenFile      (mode: umask already applied)
      open_location(location, flags, *, credentials) -> OpenFile                 (reopen: magic links, exec)
      stat(path, origin, *, follow=True, empty=False) -> Inode                   (refreshed)
      access(path, mask, origin, *, follow=True, empty=False) -> None            (mask: R_OK 4, W_OK 2, X_OK 1; raises)
      readlink(path, origin, *, empty=False) -> str
      mkdir(path, mode, origin) · mknod(path, mode, rdev, origin) · symlink(target, path, origin)
      unlink(path, origin) · rmdir(path, origin) · truncate(path, size, origin)
      link(old, new, origin, new_origin, *, follow=False, empty=False)
      rename(old, new, origin, new_origin, *, flags=0)
      pipe(flags=0) -> (OpenFile, OpenFile) · anonymous(name, flags) -> OpenFile (memfd) · mount(path, inode) -> Mount
      place_of(file) -> Location              where /proc/self/fd/N leads, pipes and streams included
      sync()                                  dirty pages of shared mappings reach their files: sync(2), end of a run
      path_of(location, root) -> str          as getcwd and d_path: "(unreachable)", " (deleted)"
      space(location) -> Space                statfs: total, free bytes, files, name length, magic
      discarded() -> list[Discarded(path, bytes, kind)] · keep_option() -> str     "--rw /home/me/out", "" if nothing
      wake_up                                  attribute: called with the waiters an operation woke; the kernel sets it

- `attributes`: `change_mode(inode, mode, credentials)`, `change_owner(inode, uid, gid, credentials)` (-1: keep),
  `change_times(inode, times, credentials)` (times: (atime_ns, mtime_ns) with NOW and OMIT allowed; None: both now).
- `file.OpenFile`: an open file description. `inode`, `flags` (status flags; may be set by F_SETFL), `offset`,
  `location` (None for pipes), `path` (what /proc/self/fd/N reads), `references`;

      read_into(pieces, offset=None) -> int    0 is end of file; offset None uses and moves the file offset
      write_from(pieces, offset=None) -> int   may be partial; the handler goes on
      seek(offset, whence) -> int · truncate(size) · available() · sync() · allocate(mode, offset, length)
      ready() -> int (POLL* bits) · read_queue, write_queue: WaitQueue | None · queues() · host_fd() -> int (-1: none)
      opening() -> WaitQueue | None            a FIFO whose other end nobody opened yet; wait on it, then ask again
      hold() · close()                         FileTable does both

  Directories: `next_entries() -> list[(name, inode number, d_type, cookie)]` from the offset on, `.` and `..` included;
  after taking an entry set `offset = cookie`. Offsets are stable cookies. The kinds that file systems share are in
  `open_files`.
- `file.WouldBlock(queue, host_fd, host_write)`: raised by read_into/write_from when nothing can be done now.
- `file_table.FileTable(limit)`: `get(fd)` (EBADF), `install(file, *, cloexec=False, minimum=0) -> fd`, `close(fd)`,
  `dup(fd, minimum=0, cloexec=False)`, `dup2(old, new)`, `dup3(old, new, cloexec)`, `is_cloexec/set_cloexec`,
  `close_on_exec()`, `close_all()`, `clone()`, `items() -> [(fd, OpenFile)]`, `limit`.
- `generated`: what /proc is made of: `GeneratedFile(produce, ...)` (bytes made when opened), `GeneratedDirectory(names,
  find)`, `StaticDirectory({name: inode})`, `MagicLink(text, place)`, `DynamicLink(text)`.
- `streams.host_stream(vfs, fd) -> OpenFile`: the host's stdin, stdout, stderr. `devices.populate(...)`: /dev.
- `locks.LockTable`, at `vfs.locks`: flock and record locks; `of(inode)` has those of a file.
- `pipe.Pipe` with its `ring.Ring` of buffers: pipes and FIFOs. `sockets.Socket`: what all sockets have in common;
  `unix_sockets`, `tcp_sockets` and `udp_sockets` (over the loopback, with `inet_sockets` and `inet_ports`) are its
  kinds, made and found by `socket_space.SocketSpace`, at `vfs.sockets`; `SocketFile` is a descriptor's view of one.
- `watches`: tells who watches a file or its directory (`Inode.watches`) what is done to it; `OpenFile.tell`,
  `Location.tell`.
- `memfd.MemoryFile`: what `anonymous()` opens, with its seals. `extended`: `get`, `names`, `put`, `remove` attributes.
- `assemble.assemble(page_cache, clock, *, host_root="/", rw=(), binds=(), visible=None, limit, deterministic,
  random_bytes, terminal_fd=-1) -> Vfs`: the namespace that the command line describes.
"""

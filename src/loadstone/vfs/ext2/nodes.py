"""The inodes of ext2 as the namespace sees them. Sources: fs/ext2/{inode,namei,symlink}.c."""

from __future__ import annotations

from collections.abc import Sequence
from errno import EEXIST, EINVAL, EMLINK, ENOENT, ENOSPC, ENOTEMPTY, ENXIO, EXDEV
from os import fsdecode, fsencode, major, makedev, minor
from struct import Struct
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from loadstone.errors import LinuxError
from loadstone.vfs.ext2.entries import Entries
from loadstone.vfs.ext2.mapping import BlockMap
from loadstone.vfs.ext2.volume import ROOT_INODE
from loadstone.vfs.file import after, total
from loadstone.vfs.flags import (
    NOW,
    OMIT,
    S_IFDIR,
    S_IFIFO,
    S_IFLNK,
    S_IFMT,
    S_IFREG,
    S_ISGID,
    S_ISUID,
    SEEK_DATA,
    d_type,
)
from loadstone.vfs.inode import Entry, Identity, Inode
from loadstone.vfs.open_files import DirectoryFile
from loadstone.vfs.regular import RegularFile, before

if TYPE_CHECKING:
    from loadstone.vfs.ext2.volume import Volume
    from loadstone.vfs.file import OpenFile
    from loadstone.vfs.location import Location
    from loadstone.vfs.pipe import Pipe
    from loadstone.vfs.vfs import Vfs

# mode, user, size, access, change, modification, deletion, group, links, sectors, flags, reserved
_HEAD = Struct("<HHIIIIIHHIII")
_SIZE_HIGH, _OWNER_HIGH = Struct("<I"), Struct("<HH")
_AT_POINTERS, _AT_SIZE_HIGH, _AT_OWNER_HIGH, _BYTES = 40, 108, 120, 128
_SECOND = 1_000_000_000
_INDEXED = 0x1000  # EXT2_INDEX_FL: a hash tree over the entries, which a linear change makes wrong
_MOST_LINKS = 32000  # EXT2_LINK_MAX
_INLINE = 60  # a symbolic link shorter than this is in the inode
_SECTOR = 512


class Ext2:
    """A mounted file system: finds the one object of each inode."""

    __slots__ = ("device", "nodes", "vfs", "volume")

    def __init__(self, volume: Volume, vfs: Vfs, device: int) -> None:
        self.volume = volume
        self.vfs = vfs
        self.device = device
        self.nodes: WeakValueDictionary[int, Node] = WeakValueDictionary()

    def root(self) -> Node:
        """The topmost directory; EINVAL if it is none."""
        root = self.get(ROOT_INODE)
        if not root.is_directory:
            raise LinuxError(EINVAL, "the root inode is no directory")
        return root

    def get(self, number: int) -> Node:
        """The inode of a number; EINVAL for one that is not on the device."""
        known = self.nodes.get(number)
        if known is None:
            raw = bytearray(self.volume.read(self.volume.inode_offset(number), _BYTES))
            known = self._object(number, raw)
        return known

    def make(self, parent: Node, mode: int, who: Identity) -> Node:
        """A new inode, beside its directory; ENOSPC."""
        number = self.volume.new_inode(parent.inode, mode & S_IFMT == S_IFDIR)
        raw = bytearray(_BYTES)
        gid = parent.gid if parent.mode & S_ISGID else who.fsgid
        if parent.mode & S_ISGID and mode & S_IFMT == S_IFDIR:
            mode |= S_ISGID
        seconds = self.volume.now() // _SECOND
        _HEAD.pack_into(raw, 0, mode, who.fsuid & 0xFFFF, 0, seconds, seconds, seconds, 0, gid & 0xFFFF, 1, 0, 0, 0)
        _OWNER_HIGH.pack_into(raw, _AT_OWNER_HIGH, who.fsuid >> 16, gid >> 16)
        self.volume.write(self.volume.inode_offset(number), bytes(self.volume.inode_size))
        made = self._object(number, raw)
        made.save()
        return made

    def _object(self, number: int, raw: bytearray) -> Node:
        kind = _HEAD.unpack_from(raw)[0] & S_IFMT
        made: Node
        if kind == S_IFREG:
            made = File(self, number, raw)
        elif kind == S_IFDIR:
            made = Directory(self, number, raw)
        elif kind == S_IFLNK:
            made = Symlink(self, number, raw)
        else:
            made = Special(self, number, raw)
        self.nodes[number] = made
        return made

    def sync(self) -> None:
        """Write the dirty pages of shared mappings."""
        for node in list(self.nodes.values()):
            if isinstance(node, File):
                node.sync()
        self.volume.disk.sync()


class Node(Inode):
    """An inode of the device. What is changed is written there at once."""

    __slots__ = ()

    fs: Ext2
    map: BlockMap
    raw: bytearray

    def begin(self, fs: Ext2, number: int, raw: bytearray) -> None:
        """Take the attributes from the inode's bytes. (The slots are in the subclasses, as in Overlaid.)"""
        volume = fs.volume
        mode, uid, size, atime, ctime, mtime, _, gid, links, sectors, _, _ = _HEAD.unpack_from(raw)
        uid_high, gid_high = _OWNER_HIGH.unpack_from(raw, _AT_OWNER_HIGH)
        Inode.__init__(self, fs.device, number, mode, uid | uid_high << 16, gid | gid_high << 16)
        self.fs = fs  # type: ignore[misc]
        self.raw = raw  # type: ignore[misc]
        if mode & S_IFMT == S_IFREG:
            size |= _SIZE_HIGH.unpack_from(raw, _AT_SIZE_HIGH)[0] << 32
        self.size, self.nlink, self.blocks = size, links, sectors
        self.atime_ns, self.mtime_ns, self.ctime_ns = (_signed(one) * _SECOND for one in (atime, mtime, ctime))
        goal = fs.volume.first + (number - 1) // volume.inodes_per_group * volume.per_group
        taken = sectors * _SECTOR // volume.block_size
        pointers = bytes(raw[_AT_POINTERS : _AT_POINTERS + 60])
        self.map = BlockMap(volume, pointers, taken, goal)  # type: ignore[misc]

    def save(self) -> None:
        """Write the attributes to the device."""
        volume, raw = self.fs.volume, self.raw
        if volume.read_only:
            return
        self.blocks = self.map.taken * volume.block_size // _SECTOR
        times = [min(max(one // _SECOND, -(1 << 31)), (1 << 31) - 1) & 0xFFFF_FFFF for one in self._times()]
        flags = _HEAD.unpack_from(raw)[10] & ~(_INDEXED if self.is_directory else 0)
        _HEAD.pack_into(
            raw, 0, self.mode, self.uid & 0xFFFF, self.size & 0xFFFF_FFFF, *times, self.gid & 0xFFFF,
            self.nlink, self.blocks, flags, 0,
        )  # fmt: skip
        if self.is_regular:
            _SIZE_HIGH.pack_into(raw, _AT_SIZE_HIGH, self.size >> 32)
        _OWNER_HIGH.pack_into(raw, _AT_OWNER_HIGH, self.uid >> 16, self.gid >> 16)
        if not self._is_inline:
            raw[_AT_POINTERS : _AT_POINTERS + 60] = self.map.pack()
        volume.write(volume.inode_offset(self.inode), raw)

    @property
    def _is_inline(self) -> bool:
        """Whether something else is where the pointers would be: a short link's text, a device's number."""
        return not (self.is_regular or self.is_directory) and not self.map.taken

    def _times(self) -> tuple[int, int, int, int]:
        deleted = self.fs.volume.now() if not self.nlink else 0
        return self.atime_ns, self.ctime_ns, self.mtime_ns, deleted

    def end_of_life(self) -> None:
        """Nobody has the inode any more: if it has no name either, its room is free again."""
        volume = self.fs.volume
        if self.nlink == 0 and not volume.read_only:
            try:
                self.size = 0
                if not self._is_inline:
                    self.map.cut(0)
                self.save()
                volume.free_inode(self.inode, self.is_directory)
            except (LinuxError, ValueError, OSError):
                pass  # the machine is being taken down: e2fsck finds it

    def changed(self, *, contents: bool = False) -> None:
        """Note the time of a change, and write it."""
        self.ctime_ns = self.fs.volume.now()
        if contents:
            self.mtime_ns = self.ctime_ns
        self.save()

    def set_mode(self, mode: int) -> None:
        """Set the twelve permission bits."""
        self.mode = self.mode & S_IFMT | mode & 0o7777
        self.changed()

    def set_owner(self, uid: int, gid: int) -> None:
        """Set owner and group. Not for directories, set-ID bits go, as in chown_common()."""
        self.uid = uid if uid >= 0 else self.uid
        self.gid = gid if gid >= 0 else self.gid
        if not self.is_directory:
            self.mode &= ~S_ISUID & (~S_ISGID if self.mode & 0o010 else ~0)
        self.changed()

    def set_times(self, atime_ns: int, mtime_ns: int) -> None:
        """Set the times, in whole seconds."""
        now = self.fs.volume.now()
        if atime_ns != OMIT:
            self.atime_ns = now if atime_ns == NOW else atime_ns // _SECOND * _SECOND
        if mtime_ns != OMIT:
            self.mtime_ns = now if mtime_ns == NOW else mtime_ns // _SECOND * _SECOND
        self.changed()

    def count_links(self, change: int) -> None:
        """One name more or less."""
        self.nlink += change
        self.changed()


def _signed(seconds: int) -> int:
    return (seconds ^ 0x8000_0000) - 0x8000_0000


class File(RegularFile, Node):
    """A regular file."""

    __slots__ = ("fs", "map", "raw")

    def __init__(self, fs: Ext2, number: int, raw: bytearray) -> None:
        RegularFile.__init__(self, fs.vfs.page_cache, 0, 0, 0)
        self.begin(fs, number, raw)

    def __del__(self) -> None:
        RegularFile.__del__(self)
        if getattr(self, "map", None) is not None:
            self.end_of_life()

    def _read_host(self, pieces: Sequence[memoryview], offset: int) -> int:
        volume, done = self.fs.volume, 0
        length = volume.block_size
        count = min(total(pieces), self.size - offset)
        while done < count:
            index, start = divmod(offset + done, length)
            block, run = self.map.run(index, -(-(start + count - done) // length))
            part = before(pieces, min(run * length - start, count - done))
            if block:
                volume.disk.read_into(part, block * length + start)
            else:
                for piece in part:
                    piece[:] = bytes(len(piece))
            done += total(part)
            pieces = after(pieces, total(part))
        return done

    def _write_host(self, pieces: Sequence[memoryview], offset: int, length: int) -> int:
        self.fs.volume.demand_size(offset + length)
        done = 0
        try:
            while done < length:
                part = self._write_run(pieces, offset + done, length - done)
                done += part
                pieces = after(pieces, part)
        except LinuxError as error:
            if not done or error.errno != ENOSPC:
                self.save()
                raise
        return done

    def _write_run(self, pieces: Sequence[memoryview], offset: int, count: int) -> int:
        """Write what is in one row of blocks, which are made if there is a hole; the number of bytes."""
        volume = self.fs.volume
        length = volume.block_size
        index, start = divmod(offset, length)
        most = -(-(start + count) // length)
        block, run = self.map.run(index, most)
        if not block:
            block, run = self.map.make(index, run)
            if start:
                volume.write_block(block, bytes(length))
            if (start + count) % length and start + count <= run * length:
                volume.write_block(block + run - 1, bytes(length))
        part = before(pieces, min(run * length - start, count))
        volume.disk.write_from(part, block * length + start)
        return total(part)

    def written(self, end: int, modified: bool) -> None:
        """Note the new size and time."""
        self.size = max(self.size, end)
        if modified:
            self.changed(contents=True)
        else:
            self.save()

    def truncate(self, size: int) -> None:
        """Make it `size` bytes long; EFBIG."""
        self.fs.volume.demand_size(size)
        length = self.fs.volume.block_size
        if size < self.size:
            index, start = divmod(size, length)
            block = self.map.find(index) if start else 0
            if block:  # what comes after the end reads as zeros if the file grows again
                self.fs.volume.write(block * length + start, bytes(length - start))
            self.map.cut(-(-size // length))
        self.size = size
        self.cut(size)
        self.changed(contents=True)

    def clear(self, offset: int, length: int) -> None:
        """Make a range read as zeros."""
        count = min(length, self.size - offset)
        if count > 0:
            self.write_from([memoryview(bytes(count))], offset)

    def find(self, offset: int, whence: int) -> int:
        """SEEK_DATA and SEEK_HOLE: ext2 knows of no holes (generic_file_llseek)."""
        if not 0 <= offset < self.size:
            raise LinuxError(ENXIO)
        return offset if whence == SEEK_DATA else self.size


class Directory(Node):
    """A directory."""

    __slots__ = ("fs", "map", "raw")

    def __init__(self, fs: Ext2, number: int, raw: bytearray) -> None:
        self.begin(fs, number, raw)

    def __del__(self) -> None:
        if getattr(self, "map", None) is not None:
            self.end_of_life()

    @property
    def names(self) -> Entries:
        """Its entries on the device."""
        return Entries(self.fs.volume, self.map)

    def lookup(self, name: str) -> Inode:
        """The file of a name."""
        found = self.names.find(self.size, name)
        if found is None:
            raise LinuxError(ENOENT)
        return self.fs.get(found.inode)

    def entries(self) -> list[Entry]:
        """In the order of the device."""
        found = self.names.all(self.size)
        return [(one.name, one.inode, d_type(one.kind)) for one in found if one.name not in (".", "..")]

    def open(self, flags: int, location: Location | None) -> OpenFile:
        """Open it for its names."""
        return DirectoryFile(self, flags, location)

    def _put(self, name: str, inode: Node) -> None:
        if self.nlink == 0:
            raise LinuxError(ENOENT)
        self.size = self.names.add(self.size, name, inode.inode, inode.mode)
        self.changed(contents=True)

    def _take(self, name: str) -> None:
        found = self.names.find(self.size, name)
        if found is None:
            raise LinuxError(ENOENT)
        self.names.remove(found)
        self.changed(contents=True)

    def _new(self, name: str, mode: int, who: Identity) -> Node:
        if self.names.find(self.size, name) is not None:
            raise LinuxError(EEXIST)
        made = self.fs.make(self, mode, who)
        try:
            self._put(name, made)
        except LinuxError:
            made.nlink = 0
            raise
        return made

    def create(self, name: str, mode: int, who: Identity) -> Inode:
        """An empty regular file."""
        return self._new(name, S_IFREG | mode & 0o7777, who)

    def temporary(self, mode: int, who: Identity) -> Inode:
        """A regular file without a name."""
        made = self.fs.make(self, S_IFREG | mode & 0o7777, who)
        made.nlink = 0
        made.save()
        return made

    def mkdir(self, name: str, mode: int, who: Identity) -> Inode:
        """An empty directory; EMLINK."""
        if self.nlink >= _MOST_LINKS:
            raise LinuxError(EMLINK)
        made = self.fs.make(self, S_IFDIR | mode & 0o1777, who)
        assert isinstance(made, Directory)
        try:
            made.size = made.names.start(made.inode, self.inode)
            made.nlink = 2
            made.save()
            self._put(name, made)
        except LinuxError:
            made.nlink = 0
            raise
        self.count_links(1)
        return made

    def symlink(self, name: str, target: str, who: Identity) -> Inode:
        """A symbolic link: its text in the inode, or in a block. ENAMETOOLONG is the caller's to see."""
        made = self._new(name, S_IFLNK | 0o777, who)
        text = fsencode(target)
        made.size = len(text)
        if len(text) < _INLINE:
            made.raw[_AT_POINTERS : _AT_POINTERS + 60] = text.ljust(60, b"\0")
        else:
            block, _ = made.map.make(0, 1)
            self.fs.volume.write_block(block, text.ljust(self.fs.volume.block_size, b"\0"))
        made.save()
        return made

    def mknod(self, name: str, mode: int, rdev: int, who: Identity) -> Inode:
        """A FIFO, a socket's name, or a device node."""
        made = self._new(name, mode, who)
        if isinstance(made, Special):
            made.set_number(rdev)
        return made

    def link(self, name: str, inode: Inode) -> None:
        """Another name; EXDEV, EMLINK."""
        if not isinstance(inode, Node) or inode.fs is not self.fs:
            raise LinuxError(EXDEV)
        if inode.nlink >= _MOST_LINKS:
            raise LinuxError(EMLINK)
        self._put(name, inode)
        inode.count_links(1)

    def unlink(self, name: str, inode: Inode) -> None:
        """Take a name away; with the last one the file goes when nobody has it open."""
        assert isinstance(inode, Node)
        self._take(name)
        inode.count_links(-1)

    def rmdir(self, name: str, inode: Inode) -> None:
        """Remove an empty directory."""
        if not isinstance(inode, Directory) or inode.entries():
            raise LinuxError(ENOTEMPTY)
        self._take(name)
        inode.count_links(-inode.nlink)
        self.count_links(-1)

    def rename(self, name: str, inode: Inode, target: Inode, new_name: str, replaced: Inode | None) -> None:
        """Move a name: the new one first, so that the file always has one."""
        assert isinstance(inode, Node)
        if not isinstance(target, Directory) or target.fs is not self.fs:
            raise LinuxError(EXDEV)
        if replaced is not None:
            assert isinstance(replaced, Node)
            if isinstance(replaced, Directory) and replaced.entries():
                raise LinuxError(ENOTEMPTY)
            found = target.names.find(target.size, new_name)
            if found is None:
                raise LinuxError(ENOENT)
            target.names.point(found, inode.inode, inode.mode)
            target.changed(contents=True)
            replaced.count_links(-replaced.nlink if replaced.is_directory else -1)
            if replaced.is_directory:
                target.count_links(-1)
        else:
            target._put(new_name, inode)
        self._take(name)
        inode.changed()
        if isinstance(inode, Directory) and target is not self:
            inode.set_parent(target)
            target.count_links(1)
            self.count_links(-1)

    def set_parent(self, parent: Directory) -> None:
        """Let `..` lead elsewhere."""
        found = self.names.find(self.size, "..")
        if found is not None:
            self.names.point(found, parent.inode, parent.mode)

    def exchange(self, name: str, inode: Inode, target: Inode, new_name: str, other: Inode) -> None:
        """EINVAL: ext2 does not exchange names."""
        raise LinuxError(EINVAL)


class Symlink(Node):
    """A symbolic link."""

    __slots__ = ("fs", "map", "raw")

    def __init__(self, fs: Ext2, number: int, raw: bytearray) -> None:
        self.begin(fs, number, raw)

    def __del__(self) -> None:
        if getattr(self, "map", None) is not None:
            self.end_of_life()

    def readlink(self) -> str:
        """The text."""
        if not self.map.taken:
            return fsdecode(bytes(self.raw[_AT_POINTERS : _AT_POINTERS + min(self.size, _INLINE)]))
        return fsdecode(self.fs.volume.read_block(self.map.find(0))[: self.size])


class Special(Node):
    """A FIFO, a socket's name, or a device node."""

    __slots__ = ("fs", "map", "pipe", "raw")

    def __init__(self, fs: Ext2, number: int, raw: bytearray) -> None:
        self.begin(fs, number, raw)
        self.pipe: Pipe | None = None
        old, new = self.map.pointers[:2]
        if old:
            self.rdev = makedev(old >> 8 & 0xFF, old & 0xFF)
        elif new:
            self.rdev = makedev(new >> 8 & 0xFFF, new & 0xFF | new >> 12 & 0xFFF00)

    def __del__(self) -> None:
        if getattr(self, "map", None) is not None:
            self.end_of_life()

    def set_number(self, rdev: int) -> None:
        """Say which device it stands for, as the format has it: 16 bits where they do, else 32."""
        self.rdev = rdev
        high, low = major(rdev), minor(rdev)
        old, new = high << 8 | low, low & 0xFF | high << 8 | (low & ~0xFF) << 12
        numbers = (old, 0) if high < 256 and low < 256 else (0, new)
        Struct("<II").pack_into(self.raw, _AT_POINTERS, *numbers)
        self.save()

    def open(self, flags: int, location: Location | None) -> OpenFile:
        """Open an end of a FIFO, or the machine's device of the number; ENXIO."""
        if self.mode & S_IFMT != S_IFIFO:
            return self.fs.vfs.open_device(self, flags, location)
        from loadstone.vfs.pipe import Pipe, PipeFile

        if self.pipe is None:
            self.pipe = Pipe(self.fs.vfs.wake, f"fifo:[{self.inode}]")
        return PipeFile(self, flags, location, self.pipe)

"""Physical memory: frames over one shared mapping that Python, Unicorn and KVM all see.

The mapping is a memfd, so the host gives a page only to a frame that was written. Frames are handed out from the bottom
up, which keeps the tables here as long as the most that was ever in use, not as long as the memory is large.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from array import array
from collections.abc import Callable, Iterable, Sequence

from loadstone.errors import OutOfFrames

FRAME_SIZE = 4096
FRAME_SHIFT = 12
ENTRIES = 512  # 64-bit words in a frame

# Who owns a frame.
FREE, RESERVED, TABLE, ANONYMOUS, CACHE, ZERO = range(6)
OWNER_NAMES = ("free", "reserved", "page table", "anonymous", "page cache", "zero")

_ZEROS = bytes(FRAME_SIZE)
_GROWTH = 4096  # entries by which the tables grow
_GIVE_BACK = 8192  # dirty free frames (32 MiB) at which they go back to the host
_RESERVE = 32  # frames left at which memory is short; page tables may still be made from them
_NEVER = 1 << 62
_MADV_POPULATE_WRITE = 23  # Linux 5.14; not in Python's mmap
_WORTH_POPULATING = 8  # frames


class PhysicalMemory:
    """`size` bytes of memory, in frames of 4,096 bytes with a reference count and an owner each.

    Attributes:
        size: bytes.
        words: the whole memory as unsigned 64-bit words; word `i` of a frame is `words[frame * 512 + i]`.
        base: the host address of frame 0.
        zero_frame: the frame of zeros that reads of untouched anonymous memory share.
        in_use_end: the address past the last frame that was ever handed out.
        executed: a byte a frame, 1 while a core may hold translations of the code in it; a mapping of its own, which
            machine code reads as well, at the host address `executed_address`.
        rewritten: frames of code that somebody other than the program has written; a core drops what it translated of
            them before it goes on.
        peak: the most frames that were ever in use at once.
    """

    def __init__(self, size: int) -> None:
        self.size = size & -FRAME_SIZE
        self.frames = self.size >> FRAME_SHIFT
        self._fd = os.memfd_create("loadstone-memory", os.MFD_CLOEXEC)
        os.ftruncate(self._fd, self.size)
        self._map = mmap.mmap(self._fd, self.size, mmap.MAP_SHARED | getattr(mmap, "MAP_NORESERVE", 0x4000))
        self.bytes = memoryview(self._map)
        self.words = self.bytes.cast("Q")
        self._pin = ctypes.c_char.from_buffer(self._map)
        self.base = ctypes.addressof(self._pin)
        self._references = array("I")
        self._owners = array("B")
        self.executed = mmap.mmap(-1, self.frames)
        self._executed_pin = ctypes.c_char.from_buffer(self.executed)
        self.executed_address = ctypes.addressof(self._executed_pin)
        self.rewritten: list[int] = []
        self._next = self.in_use_end = 0  # frames from here on were never used
        self._free: list[int] = []  # free, with old contents
        self._clean: list[int] = []  # free, given back to the host: zeros again
        self.quarantine: list[int] = []  # free, but a core may still hold a translation of their code
        self.old_tables: list[int] | None = None  # free page-table frames, where a core keeps copies of what they said
        self._counts = [0] * len(OWNER_NAMES)
        self.used = 0
        self.peak = 0
        self._relief: Callable[[], None] | None = None
        self._short_at = _NEVER
        self._can_populate = True
        self.zero_frame = self.allocate(ZERO)

    def allocate(self, owner: int) -> int:
        """A frame of zeros with one reference. Raises OutOfFrames."""
        if self.used >= self._short_at and owner != TABLE:
            self._relieve()
        if self._free:
            frame = self._free.pop()
            start = frame << FRAME_SHIFT
            self.bytes[start : start + FRAME_SIZE] = _ZEROS
        elif self._clean:
            frame = self._clean.pop()
        else:
            frame = self._next
            if frame >= self.frames:
                if owner != TABLE and self._relieve():
                    return self.allocate(owner)
                raise OutOfFrames(f"all {self.frames} frames ({self.size >> 20} MiB) are in use")
            self._extend(frame + 1)
        self._references[frame] = 1
        self._owners[frame] = owner
        self._count(owner, 1)
        return frame

    def allocate_run(self, count: int, owner: int) -> int:
        """The first of `count` consecutive frames of zeros, one reference each. Raises OutOfFrames."""
        if count == 1:
            return self.allocate(owner)
        first = self._next
        if first + count > self.frames:
            raise OutOfFrames(f"no {count} consecutive frames are left of {self.frames} ({self.size >> 20} MiB)")
        self._extend(first + count)
        self._references[first : first + count] = array("I", (1,)) * count
        self._owners[first : first + count] = array("B", (owner,)) * count
        self._count(owner, count)
        return first

    def allocate_many(self, count: int, owner: int) -> list[int]:
        """`count` frames of zeros, one reference each, those that were in use before first. Raises OutOfFrames.

        They are about to be used: the host gives its pages for them now, which costs less than one by one.
        """
        used = self._reuse(count, owner)
        memory = self.bytes
        for frame in used:
            start = frame << FRAME_SHIFT
            memory[start : start + FRAME_SIZE] = _ZEROS
        return used + self._rest(count, owner, used)

    def duplicate(self, frames: Sequence[int]) -> list[int]:
        """Anonymous frames with the contents of `frames`, one reference each. Raises OutOfFrames."""
        copies = self.allocate_old(len(frames))
        memory = self.bytes
        for frame, copy in zip(frames, copies, strict=True):
            start, target = frame << FRAME_SHIFT, copy << FRAME_SHIFT
            memory[target : target + FRAME_SIZE] = memory[start : start + FRAME_SIZE]
        return copies

    def allocate_old(self, count: int) -> list[int]:
        """`count` anonymous frames with any contents, one reference each, to be written whole. Raises OutOfFrames."""
        used = self._reuse(count, ANONYMOUS)
        return used + self._rest(count, ANONYMOUS, used)

    def when_short(self, relief: Callable[[], None] | None) -> None:
        """Call `relief` once, when memory is nearly used up: it may release frames that can be done without.

        It is called from within `allocate`, but for that of a page table, whose callers hold entries they have read.
        """
        self._relief = relief
        self._short_at = _NEVER if relief is None else self.frames - _RESERVE

    def hold(self, frame: int) -> None:
        """One more reference to `frame`."""
        self._references[frame] += 1

    def release(self, frame: int) -> None:
        """One reference less; without any the frame is free."""
        if not self.let_go(frame):
            self.free_all((frame,))

    def release_all(self, frames: Iterable[int]) -> None:
        """`release` for each."""
        references = self._references
        gone: list[int] = []
        for frame in frames:
            left = references[frame] - 1
            references[frame] = left
            if not left:
                gone.append(frame)
        self.free_all(gone)

    def let_go(self, frame: int) -> int:
        """One reference less; how many are left. Who lets go of the last one frees the frame."""
        left = self._references[frame] - 1
        self._references[frame] = left
        return left

    def free_all(self, frames: Sequence[int]) -> None:
        """Frames that nothing refers to any more are free; nearly always those are a program's own."""
        owners, executed = self._owners, self.executed
        own: list[int] = []
        for frame in frames:
            if owners[frame] == ANONYMOUS and not executed[frame]:
                own.append(frame)
                owners[frame] = FREE
            else:
                self._free_other(frame)
        self.take_back(own)

    def disown(self, frame: int) -> None:
        """A frame of anonymous memory is nobody's now; `take_back` takes it."""
        self._owners[frame] = FREE

    def take_back(self, frames: Sequence[int]) -> None:
        """Frames of anonymous memory, without code, whose owner is FREE already, can be used again."""
        self._count(ANONYMOUS, -len(frames))
        self._free += frames
        if len(self._free) >= _GIVE_BACK:
            self._give_back()

    @property
    def references_address(self) -> int:
        """Where the host has the reference counts, 32 bits a frame; it changes when frames are first used."""
        return self._references.buffer_info()[0]

    @property
    def owners_address(self) -> int:
        """The same for the owners, 8 bits a frame."""
        return self._owners.buffer_info()[0]

    def free_tables(self, frames: Sequence[int]) -> None:
        """The frames of page tables that nothing points at any more are free."""
        references, owners = self._references, self._owners
        for frame in frames:
            references[frame] = 0
            owners[frame] = FREE
        self._count(TABLE, -len(frames))
        (self._free if self.old_tables is None else self.old_tables).extend(frames)

    def end_quarantine(self) -> None:
        """The cores hold no translation any more: frames with code in them can be used again."""
        for frame in self.quarantine:
            self.executed[frame] = 0
        self._free += self.quarantine
        self.quarantine.clear()

    def written(self, frame: int) -> None:
        """A frame got new contents, other than by a store of the program's or for a new purpose."""
        if self.executed[frame]:
            self.rewritten.append(frame)

    def end_table_quarantine(self) -> None:
        """The cores forgot every translation: frames of old page tables can be used again."""
        if self.old_tables:
            self._free += self.old_tables
            self.old_tables.clear()

    def forget(self, frame: int, count: int) -> None:
        """Take the host's translations of `count` frames away, contents kept; who maps them has to look again."""
        self._map.madvise(mmap.MADV_DONTNEED, frame << FRAME_SHIFT, count << FRAME_SHIFT)

    def references(self, frame: int) -> int:
        """How many PTEs point at a frame of anonymous memory; 1 for one of anybody else, however often it is mapped."""
        return self._references[frame]

    def is_exclusive(self, frame: int) -> bool:
        """Whether `frame` is anonymous memory that one PTE alone points at."""
        return self._references[frame] == 1 and self._owners[frame] == ANONYMOUS

    def owner(self, frame: int) -> int:
        """FREE, RESERVED, TABLE, ANONYMOUS, CACHE or ZERO."""
        return self._owners[frame] if frame < self._next else FREE

    def page(self, frame: int) -> memoryview:
        """The frame's 4,096 bytes, writable. Not to be kept across a yield."""
        start = frame << FRAME_SHIFT
        return self.bytes[start : start + FRAME_SIZE]

    def view(self, frame: int, offset: int, length: int) -> memoryview:
        """`length` bytes from `offset` in the frame on, writable; may run on into the frames that follow."""
        start = (frame << FRAME_SHIFT) + offset
        return self.bytes[start : start + length]

    def column(self, slot: int, count: int, byte: int) -> bytes:
        """Byte number `byte` of each of the `count` words from word `slot` on."""
        return self._map[8 * slot + byte : 8 * (slot + count) : 8]

    def holds_zeros(self, slot: int, count: int) -> bool:
        """Whether the `count` words from word `slot` on, at most a frame's, are all 0."""
        return self._map[8 * slot : 8 * (slot + count)] == (_ZEROS if count == ENTRIES else _ZEROS[: 8 * count])

    def usage(self) -> dict[str, int]:
        """Frames in use, by owner's name."""
        return {name: self._counts[owner] for owner, name in enumerate(OWNER_NAMES) if owner != FREE}

    @property
    def closed(self) -> bool:
        """Whether everything was given back."""
        return self._fd < 0

    def close(self) -> None:
        """Give everything back to the host. Nothing of the machine may run or look afterwards."""
        if self._fd < 0:
            return
        os.close(self._fd)
        self._fd = -1
        del self._pin
        self.words.release()
        self.bytes.release()
        try:
            self._map.close()
        except BufferError:  # somebody holds a slice: the mapping goes when that does
            return

    def _free_other(self, frame: int) -> None:
        """Free a frame that may have to wait before it is used again."""
        owner = self._owners[frame]
        self._count(owner, -1)
        self._owners[frame] = FREE
        if self.executed[frame]:
            self.quarantine.append(frame)
        elif owner == TABLE and self.old_tables is not None:
            self.old_tables.append(frame)
        else:
            self._free.append(frame)

    def _reuse(self, count: int, owner: int) -> list[int]:
        """Up to `count` frames that were in use before, with their old contents and one reference each."""
        if self.used + count > self._short_at:
            self._relieve()
        free = self._free
        found = free[-count:] if count else []
        del free[len(free) - len(found) :]
        references, owners = self._references, self._owners
        for frame in found:
            references[frame] = 1
            owners[frame] = owner
        self._count(owner, len(found))
        return found

    def _rest(self, count: int, owner: int, used: list[int]) -> list[int]:
        """As many frames of zeros as `used` has less than `count`; those are released if there are not as many."""
        missing = count - len(used)
        if not missing:
            return []
        frames = []
        try:
            frames += [self.allocate(owner) for _ in range(min(missing, len(self._clean)))]
            missing -= len(frames)
            if missing:
                first = self.allocate_run(missing, owner)
                self._populate(first, missing)
                frames += range(first, first + missing)
        except OutOfFrames:
            self.release_all(used + frames)
            raise
        return frames

    def _relieve(self) -> bool:
        """Memory is short: do what can be done about that; whether there was anything."""
        relief = self._relief
        if relief is None:
            return False
        self.when_short(None)
        relief()
        return True

    def _populate(self, first: int, count: int) -> None:
        """Have the host's pages of frames that were never used made, as far as it knows how."""
        if count >= _WORTH_POPULATING and self._can_populate:
            try:
                self._map.madvise(_MADV_POPULATE_WRITE, first << FRAME_SHIFT, count << FRAME_SHIFT)
            except OSError:  # an older kernel, or no memory: then they come one by one
                self._can_populate = False

    def _extend(self, end: int) -> None:
        """Make frames up to `end` known."""
        self._next = end
        self.in_use_end = end << FRAME_SHIFT
        if end > len(self._owners):
            more = max(_GROWTH, end - len(self._owners))
            self._references.frombytes(bytes(self._references.itemsize * more))
            self._owners.frombytes(bytes(more))

    def _count(self, owner: int, change: int) -> None:
        self._counts[owner] += change
        self.used += change
        if self.used > self.peak:
            self.peak = self.used

    def _give_back(self) -> None:
        """Let the host have the pages of the free frames, in runs; they read as zeros afterwards."""
        free = sorted(self._free)
        start = previous = free[0]
        for frame in [*free[1:], -1]:
            if frame != previous + 1:
                self._map.madvise(mmap.MADV_REMOVE, start << FRAME_SHIFT, (previous + 1 - start) << FRAME_SHIFT)
                start = frame
            previous = frame
        free.reverse()  # the lowest frame is taken first
        self._clean += free
        self._free.clear()

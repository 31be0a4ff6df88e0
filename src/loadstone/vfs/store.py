"""Where the overlay's bytes are: anonymous memfds, within a bound."""

from __future__ import annotations

import os
from _weakref import ref
from errno import EIO, ENOSPC

from loadstone.errors import LinuxError

# A file whose descriptor is taken away to make room is kept as bytes if it is no larger than this.
PARK_LIMIT = 1 << 20
COPY_CHUNK = 1 << 24
INODE_COST = 1024  # what a file without contents counts as, and each name: both are bounded as well


class Budget:
    """The bytes that the overlay may hold, and the memfds that hold them."""

    __slots__ = ("descriptors", "limit", "open", "used")

    grain = 1  # contents are counted in units of this many bytes
    fills = False  # a write for which there is room in part is done in part

    def __init__(self, limit: int, descriptors: int) -> None:
        self.limit = limit
        self.used = 0
        self.descriptors = descriptors
        self.open: dict[int, ref[Store]] = {}

    def demand(self, count: int) -> None:
        """ENOSPC if there is no room for `count` more bytes."""
        if count > 0 and self.used + count > self.limit:
            raise LinuxError(ENOSPC, f"the overlay may hold {self.limit} bytes")

    def take(self, count: int) -> None:
        """Count `count` more bytes (fewer if negative); ENOSPC."""
        self.demand(count)
        self.used += count

    def hold(self, count: int) -> None:
        """Count bytes of contents: as take()."""
        self.take(count)

    def let_go(self, count: int, overhead: int) -> None:
        """A file of `count` bytes is gone, and what it counted as beside them."""
        self.used -= count + overhead

    def room(self, count: int) -> int:
        """How many of `count` further bytes there is room for."""
        return max(0, min(count, self.limit - self.used))

    def opened(self, store: Store) -> None:
        """`store` has got a descriptor; park others if there are too many."""
        self.open[id(store)] = ref(store)
        if len(self.open) > self.descriptors:
            for reference in list(self.open.values())[: len(self.open) // 2]:
                other = reference()
                if other is not None and other is not store:
                    other.park()

    def close(self) -> None:
        """Let all contents go."""
        for reference in list(self.open.values()):
            store = reference()
            if store is not None:
                store.close()


class Store:
    """The contents of one file."""

    __slots__ = ("__weakref__", "_fd", "_parked", "budget", "charged", "size", "sparse")

    def __init__(self, budget: Budget) -> None:
        budget.take(INODE_COST)
        self.budget = budget
        self.size = 0
        self.charged = 0  # bytes counted for the contents
        self.sparse = False  # there may be holes: what it costs is asked of the host
        self._fd = -1
        self._parked = b""

    def fd(self) -> int:
        """The memfd."""
        if self._fd < 0:
            try:
                self._fd = os.memfd_create("overlay", os.MFD_CLOEXEC)
            except OSError as error:
                raise LinuxError(error.errno or EIO) from None
            if self._parked:
                os.pwrite(self._fd, self._parked, 0)
                self._parked = b""
            os.ftruncate(self._fd, self.size)
            self.budget.opened(self)
        return self._fd

    def park(self) -> None:
        """Give the descriptor back, keeping small contents as bytes."""
        if self._fd >= 0 and self.size <= PARK_LIMIT:
            self._parked = os.pread(self._fd, self.size, 0)
            os.close(self._fd)
            self._fd = -1
            self.budget.open.pop(id(self), None)

    def grow(self, offset: int, length: int) -> None:
        """Count what a write of `length` bytes at `offset` may cost; ENOSPC before anything is written."""
        if offset > self.size:
            self.sparse = True
        if self.sparse:
            self.settle()
            self.budget.hold(length)  # may count a page twice until the next settle()
            self.charged += length
        elif offset + length > self.charged:
            self._charge(offset + length)

    def _charge(self, size: int) -> None:
        """Count contents of `size` bytes; ENOSPC."""
        grain = self.budget.grain
        size = -(-size // grain) * grain
        self.budget.hold(size - self.charged)
        self.charged = size

    def settle(self) -> None:
        """Count what a sparse file really takes."""
        cost = os.fstat(self.fd()).st_blocks * 512
        change = cost - self.charged
        change = min(change, self.budget.room(change)) if change > 0 else change
        self.budget.hold(change)
        self.charged += change

    def set_size(self, size: int) -> None:
        """Make it `size` bytes long; new bytes are a hole, which costs nothing until written."""
        try:
            os.ftruncate(self.fd(), size)
        except OSError as error:
            raise LinuxError(error.errno or EIO) from None
        if size > self.size:
            self.sparse = True
        elif not self.sparse and size < self.charged:
            self._charge(size)
        self.size = size
        if self.sparse:
            self.settle()

    def fill(self, source: int, size: int) -> None:
        """Copy the first `size` bytes of another descriptor; inside the host, not through here."""
        self.grow(0, size)
        target = self.fd()
        os.lseek(target, 0, os.SEEK_SET)
        at = 0
        try:
            while at < size:
                done = os.sendfile(target, source, at, min(COPY_CHUNK, size - at))
                if done == 0:
                    break  # the host's file shrank
                at += done
            os.ftruncate(target, size)
        except OSError as error:
            raise LinuxError(error.errno or EIO) from None
        self.size = size

    def blocks(self) -> int:
        """512-byte blocks in use, as a file system with 4,096-byte blocks counts."""
        if self.sparse and self._fd >= 0:
            return os.fstat(self._fd).st_blocks
        return (self.size + 4095) // 4096 * 8

    def close(self) -> None:
        """Let the contents go."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            self.budget.open.pop(id(self), None)

    def __del__(self) -> None:
        self.budget.let_go(self.charged, INODE_COST)
        self.close()

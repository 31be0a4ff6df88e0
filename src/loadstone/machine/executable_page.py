"""A page of machine code of our own, as near as can be to the code that calls it."""

from __future__ import annotations

import ctypes
from ctypes import c_int, c_long, c_size_t, c_void_p
from mmap import MAP_ANONYMOUS, MAP_PRIVATE, PAGESIZE, PROT_EXEC, PROT_READ, PROT_WRITE

from loadstone.errors import HostError

_MAP_FIXED_NOREPLACE = 0x100000  # mmap(2): at this very address, or not at all
_STEP, _TRIES = 32 << 20, 56  # bytes; as far as a direct call reaches, but for the size of a library
_FAILED = c_void_p(-1).value


class ExecutablePage:
    """A page that holds `code`, at `address`.

    It lies below `near`, within the 2 GiB of a direct call if there is room. For a function that translated code calls
    for each of its blocks that is worth a sixth of what programs take: further away, Unicorn makes it an indirect call,
    and no CPU remembers the targets of so many. (Unicorn has its translations in the GiB below its library.)

    Raises:
        HostError: the host does not give us executable memory.
    """

    __slots__ = ("_unmap", "address")

    def __init__(self, code: bytes, near: int) -> None:
        libc = ctypes.CDLL(None)
        libc.mmap.argtypes = (c_void_p, c_size_t, c_int, c_int, c_int, c_long)
        libc.mmap.restype = c_void_p
        libc.munmap.argtypes = (c_void_p, c_size_t)
        self._unmap = libc.munmap
        self.address = 0
        first = (near & -PAGESIZE) - _STEP
        places = [(place, _MAP_FIXED_NOREPLACE) for place in range(first, max(first - _TRIES * _STEP, 0), -_STEP)]
        for place, flag in (*places, (0, 0)):  # at last, wherever there is room
            flags = MAP_PRIVATE | MAP_ANONYMOUS | flag
            address = libc.mmap(place, PAGESIZE, PROT_READ | PROT_WRITE | PROT_EXEC, flags, -1, 0)
            if address != _FAILED:
                break
        else:
            raise HostError("the host gives no memory that code can be written to and run in")
        self.address = address or 0
        ctypes.memmove(self.address, code, len(code))

    def close(self) -> None:
        """Give it back."""
        address, self.address = self.address, 0
        if address:
            self._unmap(address, PAGESIZE)

    __del__ = close

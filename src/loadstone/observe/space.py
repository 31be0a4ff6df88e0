"""An address space as it is now: its mappings, and names for the addresses in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadstone.lean import Protocol
from loadstone.memory.maps_text import vma_name
from loadstone.observe.maps import Mapping
from loadstone.observe.object_file import NotAnObject, ObjectFile
from loadstone.observe.symbols import Symbolizer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadstone.memory.address_space import AddressSpace

VSYSCALL = Mapping(0xFFFF_FFFF_FF60_0000, 0xFFFF_FFFF_FF60_1000, "--xp", 0, "[vsyscall]")


class Readable(Protocol):
    """The guest's file behind a mapping, as far as it is read here."""

    @property
    def size(self) -> int:
        """Bytes in the file."""

    def read_into(self, pieces: Sequence[memoryview], offset: int) -> int:
        """Fill `pieces` with what is at `offset`; the number of bytes."""


class GuestFile:
    """A file of the guest's, for whoever reads objects. Implements `observe.object_file.Source`."""

    def __init__(self, inode: Readable) -> None:
        self._inode = inode
        self.size = inode.size

    def read(self, offset: int, length: int) -> bytes:
        """At most `length` bytes from `offset`."""
        data = bytearray(max(0, min(length, self.size - offset)))
        done = self._inode.read_into([memoryview(data)], offset) if data else 0
        return bytes(data[:done])


def mappings_of(space: AddressSpace) -> list[Mapping]:
    """The mappings as /proc/PID/maps shows them, the vsyscall page included."""
    found = [
        Mapping(vma.start, vma.end, vma.perms, vma.offset if vma.backing is not None else 0, vma_name(space, vma))
        for vma in space.vmas
    ]
    if space.layout.vsyscall:
        found.append(VSYSCALL._replace(perms=space.layout.vsyscall))
    return found


def symbolizer(space: AddressSpace) -> Symbolizer:
    """Names for the addresses, from the guest's files that are mapped now."""
    backings = {vma.path: vma.backing for vma in space.vmas if vma.path and vma.backing is not None}

    def open_object(path: str) -> ObjectFile | None:
        backing = backings.get(path)
        try:
            return ObjectFile(GuestFile(backing)) if hasattr(backing, "read_into") else None  # type: ignore[arg-type]
        except NotAnObject:
            return None

    return Symbolizer(mappings_of(space), open_object)

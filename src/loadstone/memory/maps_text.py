"""/proc/PID/maps, byte for byte (fs/proc/task_mmu.c: show_map_vma)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from loadstone.memory.vma import Vma

if TYPE_CHECKING:
    from loadstone.memory.address_space import AddressSpace

_NAME_COLUMN = 73
_VSYSCALL = "ffffffffff600000-ffffffffff601000 {} 00000000 00:00 0                  [vsyscall]\n"


def render_maps(space: AddressSpace) -> str:
    """The whole file; paths keep their surrogate escapes."""
    lines = [render_line(space, vma) for vma in space.vmas]
    if space.layout.vsyscall:
        lines.append(_VSYSCALL.format(space.layout.vsyscall))
    return "".join(lines)


def render_line(space: AddressSpace, vma: Vma) -> str:
    """One VMA's line, with its newline."""
    backing = None if vma.name else vma.backing
    if backing is None:
        place = "00000000 00:00 0 "
    else:
        device = backing.device
        place = f"{vma.offset:08x} {os.major(device):02x}:{os.minor(device):02x} {backing.inode} "
    line = f"{vma.start:08x}-{vma.end:08x} {vma.perms} {place}"
    name = vma_name(space, vma)
    return f"{line:<{_NAME_COLUMN}}{name}\n" if name else f"{line}\n"


def vma_name(space: AddressSpace, vma: Vma) -> str:
    """What the last column says: the file's path, [heap], [stack], a special mapping's name, or nothing."""
    if vma.name:
        return vma.name
    if vma.backing is not None:
        path = vma.path.replace("\n", "\\012")
        return f"{path} (deleted)" if getattr(vma.backing, "unlinked", False) else path
    if vma.start < space.brk and vma.end > space.start_brk:
        return "[heap]"
    if vma.start <= space.start_stack <= vma.end:
        return "[stack]"
    return ""

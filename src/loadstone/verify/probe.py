"""What only a 32-bit process can tell of the kernel: measured on one of our own, stopped before its first instruction.

A 64-bit process cannot see the 32-bit vDSO, and so neither its size nor where `__kernel_vsyscall` is in it.
"""

from __future__ import annotations

import os
from struct import pack
from typing import TYPE_CHECKING

from loadstone.linux.auxv import AT_SYSINFO, AT_SYSINFO_EHDR
from loadstone.linux.profile import Special
from loadstone.verify.native import NativeFailure, native_image

if TYPE_CHECKING:
    from loadstone.linux.profile import KernelProfile

_EM_386, _ET_EXEC, _PT_LOAD = 3, 2, 1
_BASE = 0x0804_8000


def smallest_program() -> bytes:
    """An i386 executable of one segment: a jump to itself, which nobody will ever run."""
    entry = _BASE + 52 + 32
    header = b"\x7fELF\x01\x01\x01".ljust(16, b"\0")
    header += pack("<HHIIIIIHHHHHH", _ET_EXEC, _EM_386, 1, entry, 52, 0, 0, 52, 32, 1, 0, 0, 0)
    segment = pack("<8I", _PT_LOAD, 0, _BASE, _BASE, 52 + 32 + 2, 52 + 32 + 2, 5, 4096)
    return header + segment + b"\xeb\xfe"


def measure_i386(profile: KernelProfile) -> KernelProfile:
    """The live profile with what its 32-bit side looks like; without 32-bit programs if the kernel refuses ours.

    Raises HostError as `native_image` does.
    """
    fd = os.memfd_create("probe")
    try:
        os.write(fd, smallest_program())
        image = native_image(f"/proc/self/fd/{fd}", [b"probe"])
    except NativeFailure:
        return profile._replace(ia32=False)
    finally:
        os.close(fd)
    values = dict(image.auxiliary_vector)
    own = ("[vvar]", "[vvar_vclock]", "[vdso]")
    return profile._replace(
        auxv_i386=tuple(key for key, _ in image.auxiliary_vector),
        special_i386=tuple(Special(line.path, line.end - line.start) for line in image.mappings if line.path in own),
        vdso_entry_i386=values.get(AT_SYSINFO, 0) - values.get(AT_SYSINFO_EHDR, 0),
    )

"""What only a new process can tell of the kernel: measured on programs of our own, stopped before they run anything.

`live_profile` reads what our own process shows and concludes the rest from the version; distributions take single
changes over from younger kernels. A 64-bit process cannot see the 32-bit vDSO at all.
"""

from __future__ import annotations

import os
from struct import pack
from typing import TYPE_CHECKING

from loadstone.binfmt.names import ET_DYN, ET_EXEC, PT_LOAD
from loadstone.linux.exec.auxv import AT_PHDR, AT_SYSINFO, AT_SYSINFO_EHDR
from loadstone.linux.exec.layout import page_up
from loadstone.linux.profile import BRK_ALWAYS, BRK_RANDOMIZED, Special
from loadstone.verify.native import native_image
from loadstone.verify.native_exec import NativeFailure

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadstone.linux.profile import KernelProfile
    from loadstone.verify.native import NativeImage

_EM_386, _EM_X86_64 = 3, 62
_HUGE = 2 << 20
_FIXED = 0x0804_8000  # where i386 programs traditionally are
_OWN_MAPPINGS = ("[vvar]", "[vvar_vclock]", "[vdso]")
_FOREVER = b"\xeb\xfe"  # jmp to itself


def fixed_i386_program() -> bytes:
    """An i386 executable of one segment, a jump to itself that nobody will ever run."""
    size = 52 + 32
    header = b"\x7fELF\x01\x01\x01".ljust(16, b"\0")
    header += pack("<HHIIIIIHHHHHH", ET_EXEC, _EM_386, 1, _FIXED + size, 52, 0, 0, 52, 32, 1, 0, 0, 0)
    length = size + len(_FOREVER)
    return header + pack("<8I", PT_LOAD, 0, _FIXED, _FIXED, length, length, 5, 4096) + _FOREVER


def static_pie_program() -> bytes:
    """An x86-64 position-independent executable without interpreter whose segment wants 2 MiB of alignment."""
    size = 64 + 56
    header = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    header += pack("<HHIQQQIHHHHHH", ET_DYN, _EM_X86_64, 1, size, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    length = size + len(_FOREVER)
    return header + pack("<IIQQQQQQ", PT_LOAD, 5, 0, 0, 0, length, length, _HUGE) + _FOREVER


def measure_live(profile: KernelProfile) -> KernelProfile:
    """The live profile with what exec really does in place of what the version suggests.

    Raises HostError as `native_image` does.
    """
    try:
        image = _execute(static_pie_program(), [])
    except NativeFailure:
        return profile
    values = dict(image.auxiliary_vector)
    base = values.get(AT_PHDR, 0) - 64
    moved = image.stat["start_brk"] == page_up(profile.pie_base)
    concluded = profile.loader_brk if profile.loader_brk != BRK_ALWAYS else BRK_RANDOMIZED
    return profile._replace(
        auxv=tuple(key for key, _ in image.auxiliary_vector),
        special=_special(image),
        task_size=image.stack_top,
        empty_argument=image.stat["arg_end"] > image.stat["arg_start"],
        align_loader=base % _HUGE == 0,
        loader_brk=BRK_ALWAYS if moved else concluded,
        vdso_above_stack=values.get(AT_SYSINFO_EHDR, 0) > image.stack_top,
    )


def measure_i386(profile: KernelProfile) -> KernelProfile:
    """The live profile with what its 32-bit side looks like; without 32-bit programs if the kernel refuses ours.

    Raises HostError as `native_image` does.
    """
    try:
        image = _execute(fixed_i386_program(), [b"probe"])
    except NativeFailure:
        return profile._replace(ia32=False)
    values = dict(image.auxiliary_vector)
    return profile._replace(
        auxv_i386=tuple(key for key, _ in image.auxiliary_vector),
        special_i386=_special(image),
        vdso_entry_i386=values.get(AT_SYSINFO, 0) - values.get(AT_SYSINFO_EHDR, 0),
    )


def _execute(program: bytes, argv: Sequence[bytes]) -> NativeImage:
    """The image of a file that is only in memory."""
    fd = os.memfd_create("probe")
    try:
        os.write(fd, program)
        return native_image(f"/proc/self/fd/{fd}", argv)
    finally:
        os.close(fd)


def _special(image: NativeImage) -> tuple[Special, ...]:
    return tuple(Special(line.path, line.end - line.start) for line in image.mappings if line.path in _OWN_MAPPINGS)

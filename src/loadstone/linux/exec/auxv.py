"""The auxiliary vector: the names of `<linux/auxvec.h>` and `<asm/auxvec.h>`, and its bytes."""

from __future__ import annotations

from itertools import chain
from struct import pack
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadstone.linux.profile import KernelProfile

AT_NULL = 0
AT_IGNORE = 1
AT_EXECFD = 2
AT_PHDR = 3
AT_PHENT = 4
AT_PHNUM = 5
AT_PAGESZ = 6
AT_BASE = 7
AT_FLAGS = 8
AT_ENTRY = 9
AT_NOTELF = 10
AT_UID = 11
AT_EUID = 12
AT_GID = 13
AT_EGID = 14
AT_PLATFORM = 15
AT_HWCAP = 16
AT_CLKTCK = 17
AT_SECURE = 23
AT_BASE_PLATFORM = 24
AT_RANDOM = 25
AT_HWCAP2 = 26
AT_RSEQ_FEATURE_SIZE = 27
AT_RSEQ_ALIGN = 28
AT_HWCAP3 = 29
AT_HWCAP4 = 30
AT_EXECFN = 31
AT_SYSINFO = 32
AT_SYSINFO_EHDR = 33
AT_MINSIGSTKSZ = 51

NAMES = {value: name for name, value in globals().items() if name.startswith("AT_")}  # of all those above

# Not an entry's type, and so below NAMES: the bit of AT_FLAGS that says that argv[0] was kept when a binfmt_misc
# handler was put in front.
AT_FLAGS_PRESERVE_ARGV0 = 1


def name(identifier: int) -> str:
    """`AT_PHDR` for 3; `AT_<number>` for one that has no name here."""
    return NAMES.get(identifier) or f"AT_{identifier}"


def with_execfd(order: tuple[int, ...]) -> tuple[int, ...]:
    """An order of entries, with AT_EXECFD where the kernel puts it: behind the platform's names."""
    at = max((order.index(key) + 1 for key in (AT_PLATFORM, AT_BASE_PLATFORM) if key in order), default=len(order))
    return (*order[:at], AT_EXECFD, *order[at:])


def encode(entries: Sequence[tuple[int, int]], word: int = 8) -> bytes:
    """The vector as it lies in memory, `word` (4 or 8) bytes a field, without the closing AT_NULL."""
    return pack(f"<{2 * len(entries)}{'Q' if word == 8 else 'I'}", *chain.from_iterable(entries))


def decode(data: bytes, word: int = 8) -> list[tuple[int, int]]:
    """The pairs of a vector up to its AT_NULL, as /proc/PID/auxv and the initial stack hold it."""
    pairs: list[tuple[int, int]] = []
    for position in range(0, len(data) - 2 * word + 1, 2 * word):
        key = int.from_bytes(data[position : position + word], "little")
        if key == AT_NULL:
            break
        pairs.append((key, int.from_bytes(data[position + word : position + 2 * word], "little")))
    return pairs


def differing(shown: KernelProfile, host: KernelProfile) -> list[tuple[int, int, int]]:
    """What describes the CPU and is not the same in two profiles: (type, value in `shown`, value in `host`)."""
    pairs = (
        (AT_MINSIGSTKSZ, shown.minimum_signal_stack, host.minimum_signal_stack),
        (AT_HWCAP, shown.hwcap, host.hwcap),
        (AT_HWCAP2, shown.hwcap2, host.hwcap2),
    )
    return [(key, value, other) for key, value, other in pairs if value != other]


def find(entries: Sequence[tuple[int, int]], identifier: int, default: int = 0) -> int:
    """The value of the first entry of that kind."""
    for key, value in entries:
        if key == identifier:
            return value
    return default

"""The baseline CPU: what CPUID answers on the Unicorn core, always the same, on every host (`--cpu baseline`).

It has what Unicorn executes correctly and no more: SSE up to 4.2, AES, PCLMULQDQ, POPCNT, BMI, LZCNT, FSGSBASE; no
XSAVE and so no AVX, no RDRAND (it would not be repeatable). Bits as in Intel SDM vol. 2, CPUID. docs/engines.md lists
them, and a test compares.
"""

from __future__ import annotations

# CPUID.1:EDX, which is also AT_HWCAP: FPU VME DE PSE TSC MSR PAE MCE CX8 APIC SEP MTRR PGE MCA CMOV PAT PSE36 CLFSH MMX
# FXSR SSE SSE2.
HWCAP = 0x078BFBFF
# AT_HWCAP2: FSGSBASE.
HWCAP2 = 2
# AT_MINSIGSTKSZ: no extended state makes a signal frame larger than this.
MINIMUM_SIGNAL_STACK = 2048

_SSE3, _PCLMULQDQ, _SSSE3, _CX16 = 1 << 0, 1 << 1, 1 << 9, 1 << 13
_SSE41, _SSE42, _MOVBE, _POPCNT, _AES, _HYPERVISOR = 1 << 19, 1 << 20, 1 << 22, 1 << 23, 1 << 25, 1 << 31
_FEATURES = _SSE3 | _PCLMULQDQ | _SSSE3 | _CX16 | _SSE41 | _SSE42 | _MOVBE | _POPCNT | _AES | _HYPERVISOR
_FSGSBASE, _BMI1, _BMI2, _ERMS = 1 << 0, 1 << 3, 1 << 8, 1 << 9
_LAHF, _LZCNT = 1 << 0, 1 << 5
_SYSCALL, _NX, _RDTSCP, _LONG_MODE = 1 << 11, 1 << 20, 1 << 27, 1 << 29

_BRAND = b"Loadstone baseline x86-64 CPU".ljust(48, b"\0")
_CLFLUSH_LINE = 8 << 8  # in units of 8 bytes

Answer = tuple[int, int, int, int]

FEATURE_WORDS = ((1, 2), (1, 3), (7, 1), (7, 2), (7, 3), (0x8000_0001, 2), (0x8000_0001, 3))
"""(leaf, register) of the words whose bits say what a program may execute; register 0 is EAX."""


def _cache(kind: int, level: int, ways: int, sets: int) -> Answer:
    """Leaf 4: one cache of 64-byte lines."""
    return kind | level << 5 | 1 << 8, 63 | (ways - 1) << 22, sets - 1, 0


def _text(part: bytes) -> Answer:
    a, b, c, d = (int.from_bytes(part[i : i + 4], "little") for i in range(0, 16, 4))
    return a, b, c, d


_LEAVES: dict[int, Answer] = {
    0: (7, 0x756E6547, 0x6C65746E, 0x49656E69),  # GenuineIntel
    1: (0x306C3, _CLFLUSH_LINE | 1 << 16, _FEATURES, HWCAP),
    2: (0x00FEFF01, 0, 0, 0),  # "see leaf 4"
    7: (0, _FSGSBASE | _BMI1 | _BMI2 | _ERMS, 0, 0),
    0x8000_0000: (0x8000_0008, 0, 0, 0),
    0x8000_0001: (0, 0, _LAHF | _LZCNT, _SYSCALL | _NX | _RDTSCP | _LONG_MODE),
    0x8000_0002: _text(_BRAND[:16]),
    0x8000_0003: _text(_BRAND[16:32]),
    0x8000_0004: _text(_BRAND[32:]),
    0x8000_0008: (40 | 48 << 8, 0, 0, 0),
}
INDEXED = (4, 7)
"""The leaves that have parts, chosen by ECX."""
_CACHES = (_cache(1, 1, 8, 64), _cache(2, 1, 8, 64), _cache(3, 2, 8, 512), _cache(3, 3, 16, 8192))


def table() -> list[tuple[int, int, Answer]]:
    """(leaf, part, answer) of every leaf that the CPU has."""
    caches = [(4, part, answer) for part, answer in enumerate((*_CACHES, (0, 0, 0, 0)))]
    return [*((leaf, 0, answer) for leaf, answer in _LEAVES.items()), *caches]


def cpuid(leaf: int, subleaf: int) -> Answer:
    """EAX, EBX, ECX, EDX for a leaf; zeros for one that the CPU does not have."""
    if leaf == 4:
        return _CACHES[subleaf] if subleaf < len(_CACHES) else (0, 0, 0, 0)
    if leaf == 7 and subleaf:
        return 0, 0, 0, 0
    return _LEAVES.get(leaf, (0, 0, 0, 0))

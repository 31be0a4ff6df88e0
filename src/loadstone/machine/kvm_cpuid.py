"""What CPUID tells programs on the KVM core: `struct kvm_cpuid2`, the table that a vCPU is given.

KVM says what it supports. A paravirtual KVM says too little: its list lacks XSAVE, AVX2, LZCNT and more, and has no
topology, though ring 3 of its guests runs on the host's CPU and executes them all. A program that asks CPUID would then
take other code than it takes on the host (glibc chooses its string functions so). There, the host's own answers go in.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from loadstone.machine import cpuid
from loadstone.machine.host_cpuid import HostCpuid

FEATURES, STRUCTURED_FEATURES, TOPOLOGY, STATES, NEWER_TOPOLOGY = 1, 7, 0xB, 0xD, 0x1F
XSAVE = 1 << 26  # of leaf 1, ECX

_HEAD, _ENTRY = struct.Struct("<I4x"), struct.Struct("<7I12x")  # how many entries; one
_INDEX_MATTERS = 1  # KVM_CPUID_FLAG_SIGNIFCANT_INDEX
_HYPERVISOR_LEAVES = range(0x4000_0000, 0x4001_0000)
_INITIAL_APIC_ID = 0xFF << 24  # of leaf 1, EBX
_MOST_LEVELS = 6  # of a topology: thread, core, module, tile, die, and the end

Entry = tuple[int, int, int, int, int, int, int]
"""Function, index, flags, EAX, EBX, ECX, EDX."""


def answers(table: bytes) -> dict[tuple[int, int], cpuid.Answer]:
    """EAX, EBX, ECX, EDX by (function, index)."""
    return {(leaf, part): (a, b, c, d) for leaf, part, _, a, b, c, d in _entries(table)}


def as_programs_see_it(supported: bytes) -> bytes:
    """The table for a vCPU, from the one of what the host's KVM supports."""
    listed = answers(supported)
    states = listed.get((STATES, 0), (0, 0, 0, 0))
    if not states[0] or listed[FEATURES, 0][2] & XSAVE:
        return supported
    with HostCpuid() as host:
        entries = [_of_host(entry, host) for entry in _entries(supported) if entry[0] not in (TOPOLOGY, NEWER_TOPOLOGY)]
        for leaf in (TOPOLOGY, NEWER_TOPOLOGY):
            entries += _topology(leaf, host)
    return _table_of(entries)


def baseline_table() -> bytes:
    """The table for a vCPU that is to be the CPU of cpuid.py."""
    return _table_of(
        [(leaf, part, _INDEX_MATTERS if leaf in cpuid.INDEXED else 0, *answer) for leaf, part, answer in cpuid.table()]
    )


def _of_host(entry: Entry, host: HostCpuid) -> Entry:
    """An entry with the host's own answer; but the states are those that KVM can save, and the vCPU's number is 0."""
    leaf, part, flags, *_ = entry
    if leaf in _HYPERVISOR_LEAVES or (leaf, part) == (STATES, 0):
        return entry
    a, b, c, d = host(leaf, part)
    if leaf == FEATURES:
        b &= ~_INITIAL_APIC_ID
    return leaf, part, flags, a, b, c, d


def _topology(leaf: int, host: HostCpuid) -> Iterator[Entry]:
    """Every level of an extended topology leaf, seen from the CPU with number 0."""
    for level in range(_MOST_LEVELS):
        a, b, c, _ = host(leaf, level)
        yield leaf, level, _INDEX_MATTERS, a, b, c, 0
        if not b:
            return


def _entries(table: bytes) -> Iterator[Entry]:
    for start in range(_HEAD.size, len(table), _ENTRY.size):
        leaf, part, flags, a, b, c, d = _ENTRY.unpack_from(table, start)
        yield leaf, part, flags, a, b, c, d


def _table_of(entries: list[Entry]) -> bytes:
    """`struct kvm_cpuid2`."""
    return _HEAD.pack(len(entries)) + b"".join(_ENTRY.pack(*entry) for entry in entries)

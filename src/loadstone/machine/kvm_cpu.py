"""Which CPU a vCPU is to a program: the host's, or the baseline of cpuid.py.

On hardware a vCPU shows the table of CPUID answers that it is given, exactly. On a paravirtual KVM (kvm_pvm) it shows
what the table says of the CPU's name, but the features of leaves 1, 7 and 13 are the host's in ring 3, and so are the
instructions: no vCPU can be the baseline CPU there, which `KvmCore` finds out by asking in ring 3.
"""

from __future__ import annotations

from loadstone.lean import NamedTuple
from loadstone.machine.core import FXSAVE_SIZE, X87_SSE
from loadstone.machine.kvm_cpuid import STATES, STRUCTURED_FEATURES, answers, as_programs_see_it, baseline_table
from loadstone.machine.kvm_tables import CR4_OSXSAVE, CR4_PKE

_PKU = 1 << 3  # CPUID.7:ECX
_XSAVE_LEAST = 576  # bytes: FXSAVE's and the header
_NOTHING = (0, 0, 0, 0)
_AMX = 3 << 17  # XCR0: needs a permission that Linux gives a process on request only


class Cpu(NamedTuple):
    """What a vCPU is set up to be.

    `table`: a `struct kvm_cpuid2`. `xcr0`: the extended states a program may use. `cr4`: the bits of CR4 that depend on
    the CPU. `extended_size`: bytes of the XSAVE image with all of them, 512 without XSAVE.
    """

    table: bytes
    xcr0: int
    cr4: int
    extended_size: int


def host_cpu(supported: bytes) -> Cpu:
    """The host's CPU, as far as KVM supports it (the answer to KVM_GET_SUPPORTED_CPUID)."""
    entries = answers(supported)
    xcr0 = entries.get((STATES, 0), _NOTHING)[0] & ~_AMX
    cr4 = CR4_PKE if entries.get((STRUCTURED_FEATURES, 0), _NOTHING)[2] & _PKU else 0
    table = as_programs_see_it(supported)
    if xcr0 <= X87_SSE:
        return Cpu(table, xcr0, cr4, FXSAVE_SIZE)
    parts = [entries[STATES, part] for part in range(2, 63) if xcr0 >> part & 1]
    size = max([_XSAVE_LEAST, *(size + offset for size, offset, *_ in parts)])
    return Cpu(table, xcr0, cr4 | CR4_OSXSAVE, size)


def baseline_cpu() -> Cpu:
    """The CPU that the Unicorn core is, too: no XSAVE, so no state but x87 and SSE."""
    return Cpu(baseline_table(), X87_SSE, 0, FXSAVE_SIZE)

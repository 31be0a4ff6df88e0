"""Asking a vCPU in ring 3 which CPU it is: what its program would be told, whatever the host was asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadstone.errors import HostError
from loadstone.machine import cpuid as baseline
from loadstone.machine.core import ACCESS_EXECUTE, ACCESS_READ, SYSTEM_CALL
from loadstone.machine.paging import PageTable, permissions
from loadstone.machine.physical import FRAME_SHIFT, FRAME_SIZE, RESERVED, PhysicalMemory

if TYPE_CHECKING:
    from loadstone.machine.kvm_core import KvmCore

_REGISTERS = ("eax", "ebx", "ecx", "edx")
_CODE, _CODE_AT = b"\x0f\xa2\x41\x89\xc8\x0f\x05", 0x1000  # cpuid; mov r8d, ecx; syscall


class _Bare:
    """An address space that is page tables and nothing else."""

    def __init__(self, page_table: PageTable) -> None:
        self.page_table = page_table


def cpuid(core: KvmCore, memory: PhysicalMemory, leaf: int, part: int) -> tuple[int, ...]:
    """EAX, EBX, ECX, EDX of the CPUID instruction, executed."""
    space = _Bare(PageTable(memory))
    slot, frame = space.page_table.slot(_CODE_AT), memory.allocate(RESERVED)
    memory.words[slot] = frame << FRAME_SHIFT | permissions(ACCESS_READ | ACCESS_EXECUTE)
    memory.page(frame)[: len(_CODE)] = _CODE
    context = core.new_context()
    context.pc = _CODE_AT
    context.write("rax", leaf)
    context.write("rcx", part)
    while core.run(context, space, 0).kind != SYSTEM_CALL:
        pass
    answer = tuple(context.read(register) for register in ("rax", "rbx", "r8", "rdx"))
    memory.words[slot] = 0
    core.machine.invalidate(space.page_table.root, _CODE_AT, _CODE_AT + FRAME_SIZE, [frame])
    memory.release(frame)
    space.page_table.release()
    return answer


def check_baseline(core: KvmCore) -> None:
    """Raise HostError if a program would see more than the CPU of cpuid.py."""
    for leaf, register in baseline.FEATURE_WORDS:
        seen, wanted = core.cpuid(leaf)[register], baseline.cpuid(leaf, 0)[register]
        if seen & ~wanted:
            raise HostError(
                "--cpu baseline: what CPUID says is not decided by Loadstone on this host's KVM "
                f"(leaf {leaf:#x}, {_REGISTERS[register]}: {seen:#x}, asked for: {wanted:#x})",
                "use --engine unicorn, which is that CPU everywhere",
            )

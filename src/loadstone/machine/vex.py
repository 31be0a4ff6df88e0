"""Finds instructions that the Unicorn core would run wrongly: VEX and EVEX encodings other than BMI.

Unicorn 2 executes `vaddps` as the legacy `addps`, without a fault. So each block of code is looked at once, when it was
translated, before anything that it did leaves the machine.
"""

from __future__ import annotations

from loadstone.errors import HostError
from loadstone.machine.code import code_at
from loadstone.machine.core import Space
from loadstone.machine.instruction import LEGACY, LONGEST, MAP_3A, MAP_38, VEX, Instruction, decode, instructions
from loadstone.machine.physical import PhysicalMemory
from loadstone.machine.unicorn_engine import Engine

# VEX instructions that Unicorn runs right, by (map, opcode): BMI1 and BMI2
# (ANDN; BLS*; BZHI, PEXT, PDEP; MULX; BEXTR, SHLX, SARX, SHRX; RORX).
_BMI = frozenset(((MAP_38, 0xF2), (MAP_38, 0xF3), (MAP_38, 0xF5), (MAP_38, 0xF6), (MAP_38, 0xF7), (MAP_3A, 0xF0)))


class NewBlocks:
    """The blocks that were translated since somebody looked: the edge hook notes those that hold a VEX prefix, or may
    because it cannot see all of them.
    """

    def __init__(self, engine: Engine, memory: PhysicalMemory) -> None:
        self._control = engine.control
        self._ring = engine.hooks.ring
        self._memory = memory

    def check(self, space: Space) -> None:
        """Look at them, before anything they did leaves the machine."""
        ring = self._ring
        count = self._control.ring_count
        self._control.ring_count = 0
        for i in range(count):
            pc = ring[2 * i]
            code = code_at(self._memory, space.page_table, pc, ring[2 * i + 1])
            at = find_vex(code)
            if at >= 0:
                _refuse(pc + at, code[at:])


def refuse_vex(memory: PhysicalMemory, space: Space, pc: int) -> None:
    """An instruction that Unicorn itself refuses may be AVX as well: some VEX encodings, and all of EVEX."""
    code = code_at(memory, space.page_table, pc, LONGEST)
    found = decode(code)
    if found is not None and found.encoding != LEGACY:
        _refuse(pc, code)


def find_vex(code: bytes) -> int:
    """The offset of the first instruction in `code` that Unicorn would get wrong, or -1; `code` begins at one."""
    last = max(code.rfind(b"\xc4"), code.rfind(b"\xc5"), code.rfind(b"\x62"))  # no VEX can begin behind it
    for found in instructions(code):
        if found.start > last:
            break
        if _is_wrong(found):
            return found.start
    return -1


def _is_wrong(found: Instruction) -> bool:
    return found.encoding != LEGACY and not (found.encoding == VEX and (found.map, found.opcode) in _BMI)


def _refuse(pc: int, code: bytes) -> None:
    raise HostError(
        f"the program uses AVX ({_disassemble(code, pc)} at {pc:#x}), which the Unicorn core would run wrongly: "
        "it needs --engine kvm"
    )


def _disassemble(code: bytes, pc: int) -> str:
    """The first instruction of `code` as text, where the disassembler is installed."""
    try:
        import capstone
    except ImportError:
        return f"bytes {code[:8].hex(' ')}"
    for instruction in capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64).disasm(code, pc, 1):
        return f"{instruction.mnemonic} {instruction.op_str}".strip()
    return f"bytes {code[:8].hex(' ')}"

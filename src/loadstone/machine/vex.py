"""Finds instructions that the Unicorn core would run wrongly: VEX and EVEX encodings other than BMI.

Unicorn 2 executes `vaddps` as the legacy `addps`, without a fault.
"""

from __future__ import annotations

from loadstone.machine.instruction import LEGACY, MAP_3A, MAP_38, VEX, Instruction, instructions

# VEX instructions that Unicorn runs right, by (map, opcode): BMI1 and BMI2
# (ANDN; BLS*; BZHI, PEXT, PDEP; MULX; BEXTR, SHLX, SARX, SHRX; RORX).
_BMI = frozenset(((MAP_38, 0xF2), (MAP_38, 0xF3), (MAP_38, 0xF5), (MAP_38, 0xF6), (MAP_38, 0xF7), (MAP_3A, 0xF0)))


def find_vex(code: bytes) -> int:
    """The offset of the first instruction in `code` that Unicorn would get wrong, or -1; `code` begins at one."""
    last = max(code.rfind(b"\xc4"), code.rfind(b"\xc5"), code.rfind(b"\x62"))  # no VEX can begin behind it
    for found in instructions(code):
        if found.start > last:
            break
        if _is_wrong(found):
            return found.start
    return -1


def find_vex_in_block(code: bytes) -> int:
    """The same, for the block that begins at `code`: up to the first transfer of control."""
    for found in instructions(code):
        if _is_wrong(found):
            return found.start
        if found.transfers_control:
            return -1
    return -1


def _is_wrong(found: Instruction) -> bool:
    return found.encoding != LEGACY and not (found.encoding == VEX and (found.map, found.opcode) in _BMI)

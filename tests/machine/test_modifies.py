"""Which instructions read memory in order to write it: compared with capstone's account of each operand."""

from __future__ import annotations

import pytest

from loadstone.machine.instruction import modifies_memory
from machine.code import find, text_of

capstone = pytest.importorskip("capstone")


@pytest.mark.parametrize("name", ["ls", "bash", "ld-linux-x86-64.so.2"])
def test_as_capstone_says(name: str) -> None:
    both = capstone.CS_AC_READ | capstone.CS_AC_WRITE
    machine = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    machine.detail = True
    machine.skipdata = True
    base, code = text_of(find(name))
    wrong, seen = {}, 0
    for found in machine.disasm(code, base):
        if found.id == 0:
            continue
        expected = any(op.type == capstone.x86.X86_OP_MEM and op.access & both == both for op in found.operands)
        expected |= "cmpxchg" in found.mnemonic  # SDM vol. 2: it always writes; capstone says it only reads
        seen += expected
        if modifies_memory(bytes(found.bytes)) != expected:
            wrong.setdefault(found.mnemonic, f"{found.bytes.hex(' ')}  {found.op_str}: {expected}")
    assert wrong == {}
    assert seen > 20


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("80 0d 00 00 00 00 01", True),  # or byte ptr [rip], 1
        ("80 3d 00 00 00 00 01", False),  # cmp byte ptr [rip], 1
        ("f0 48 0f b1 0f", True),  # lock cmpxchg [rdi], rcx
        ("48 0f c7 0f", True),  # cmpxchg16b [rdi]
        ("ff 07", True),  # inc dword ptr [rdi]
        ("ff 17", False),  # call [rdi]
        ("48 01 c8", False),  # add rax, rcx
        ("48 03 07", False),  # add rax, [rdi]
        ("48 89 07", False),  # mov [rdi], rax
        ("48 01", False),  # cut off
    ],
)
def test_by_hand(code: str, expected: bool) -> None:
    assert modifies_memory(bytes.fromhex(code)) is expected

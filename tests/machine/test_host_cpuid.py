"""CPUID as the host's programs get it, and the table that the KVM core makes of it."""

from __future__ import annotations

import os
import struct
import subprocess

import pytest

from loadstone.machine.host_cpuid import HostCpuid
from loadstone.machine.kvm_cpuid import answers, as_programs_see_it
from support.compilers import Compiler

ASK = r"""
#include <cpuid.h>
#include <stdio.h>
int main(void) {
    unsigned leaves[][2] = {{0, 0}, {1, 0}, {4, 2}, {7, 0}, {13, 1}, {0x80000001, 0}}, a, b, c, d;
    for (int i = 0; i < 6; i++) {
        __cpuid_count(leaves[i][0], leaves[i][1], a, b, c, d);
        printf("%u %u %u %u %u %u\n", leaves[i][0], leaves[i][1], a, leaves[i][0] == 1 ? 0 : b, c, d);
    }
}
"""

pytestmark = pytest.mark.skipif(os.uname().machine != "x86_64", reason="CPUID is an instruction of x86 CPUs")


def test_the_instruction_answers_as_in_a_compiled_program(compiled: Compiler) -> None:
    output = subprocess.run([compiled(ASK, "pie")], capture_output=True, text=True, check=True).stdout
    with HostCpuid() as host:
        for line in output.splitlines():
            leaf, part, *expected = map(int, line.split())
            got = list(host(leaf, part))
            if leaf == 1:
                got[1] = 0  # the number of the CPU it ran on
            assert got == expected, hex(leaf)


def _table(*entries: tuple[int, int, int, int, int, int]) -> bytes:
    packed = [struct.pack("<7I12x", leaf, part, 0, *registers) for leaf, part, *registers in entries]
    return struct.pack("<II", len(packed), 0) + b"".join(packed)


def test_a_complete_list_is_left_alone() -> None:
    complete = _table((1, 0, 5, 6, 1 << 26, 8), (13, 0, 7, 0, 0, 0))
    assert as_programs_see_it(complete) == complete


def test_no_extended_states_are_invented() -> None:
    without = _table((1, 0, 5, 6, 0, 8))
    assert as_programs_see_it(without) == without


def test_a_list_with_gaps_gets_the_hosts_answers_but_not_its_states() -> None:
    gaps = _table(
        (1, 0, 0, 0, 0, 0), (7, 0, 0, 0, 0, 0), (11, 0, 0, 0, 0, 0), (13, 0, 7, 0, 0, 0), (1 << 30, 0, 9, 9, 9, 9)
    )
    got = answers(as_programs_see_it(gaps))
    with HostCpuid() as host:
        assert got[7, 0] == host(7)
        assert got[1, 0][0] == host(1)[0]
    assert got[1, 0][1] >> 24 == 0  # the CPU's number
    assert got[13, 0] == (7, 0, 0, 0)
    assert got[1 << 30, 0] == (9, 9, 9, 9)
    assert all(registers[3] == 0 for (leaf, _), registers in got.items() if leaf == 11)

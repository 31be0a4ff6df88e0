"""The three steps of creating a process, checked: an address space, the mappings, and one fault for each first touch.

1. A new address space owns one frame: the page directory.
2. After exec and before the first instruction the resident pages are those the kernel itself wrote.
3. Each first touch is one fault, answered from the right offset of the right file.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from loadstone import Machine
from loadstone.events import Fault
from loadstone.machine.physical import PhysicalMemory
from loadstone.machine.shootdown import Shootdown
from loadstone.memory.accounting import Commitment, Limits
from loadstone.memory.address_space import AddressSpace
from loadstone.memory.page_cache import PageCache
from loadstone.memory.placement import Layout
from loadstone.verify.native import native_process, parse_maps
from support.compilers import Compiler

PAGE = 4096
FRAME = ((1 << 52) - 1) & ~0xFFF
ENVIRONMENT = ["HOME=/home/user", "PATH=/usr/bin"]
PRESENT = 1 << 63  # of /proc/PID/pagemap


@pytest.fixture(params=["true", "bash", "static", "static-pie", "noseparate-code", "musl"])
def program(request: pytest.FixtureRequest, compiled: Compiler) -> str:
    system = {"true": "/bin/true", "bash": "/bin/bash"}
    return system.get(request.param) or compiled("hello", request.param)


def test_a_new_address_space_is_one_frame() -> None:
    memory = PhysicalMemory(16 << 20)
    before = memory.usage()
    limits = Limits(Commitment(memory.frames))
    space = AddressSpace(memory, PageCache(memory), Shootdown(memory), Layout(), limits)
    after = memory.usage()
    grown = {owner: after[owner] - before.get(owner, 0) for owner in after if after[owner] != before.get(owner, 0)}
    grown.pop("free", None)
    assert grown == {"page table": 1}
    assert space.page_table.table_frames() == 1
    assert memory.references(space.page_table.root) == 1


def test_resident_after_exec_is_what_the_kernel_wrote(program: str) -> None:
    """The same pages as in the native process at its first instruction: stack and tails of .bss, nothing of the rest.

    The kernel's own areas ([vvar], [vdso], [vsyscall]) are not user memory and are left out.
    """
    with native_process(program, [program], ENVIRONMENT) as kernels:
        wanted = {}
        for mapping in kernels.mappings():
            if mapping.path not in ("[vvar]", "[vvar_vclock]", "[vdso]", "[vsyscall]"):
                bits = kernels.resident(mapping.start, mapping.end)
                wanted[mapping.start, mapping.path] = [n for n, entry in enumerate(bits) if entry & PRESENT]
    with Machine(fault_around=PAGE) as machine:
        process = machine.spawn(program, [program], ENVIRONMENT)
        ours = {}
        for mapping in parse_maps(process.maps):
            if mapping.path not in ("[vvar]", "[vvar_vclock]", "[vdso]", "[vsyscall]"):
                entries = process.page_table.entries(mapping.start, mapping.end)
                ours[mapping.start, mapping.path] = [
                    (at - mapping.start) // PAGE for at, _, entry in entries if entry & 1
                ]
    assert ours == wanted


def test_each_first_touch_is_one_fault_with_the_right_bytes(program: str) -> None:
    """With pure demand paging no page is filled twice but by copy-on-write; a file's page holds the file's bytes."""
    seen: list[Fault] = []
    wrong: list[str] = []
    files: dict[str, bytes] = {}
    with Machine(fault_around=PAGE) as machine:

        def check(fault: Fault) -> None:
            seen.append(fault)
            if fault.cause == "file" and not fault.signal and os.path.exists(fault.mapping):
                content = files.setdefault(fault.mapping, Path(fault.mapping).read_bytes())
                expected = content[fault.offset : fault.offset + PAGE].ljust(PAGE, b"\0")
                if bytes(machine.physical.page(fault.frame)) != expected:
                    wrong.append(f"{fault.address:x} is not {fault.mapping}+{fault.offset:x}")

        machine.events.subscribe(check, ["fault"])
        process = machine.spawn(program, [program, "-c", ":"], ENVIRONMENT)
        mappings = [(m.start, m.end, m.offset, m.path) for m in parse_maps(process.maps)]
        process.run()
    assert not wrong
    assert not [fault for fault in seen if fault.signal]
    assert all(fault.around == 0 for fault in seen)
    for fault in seen:
        for start, end, offset, path in mappings:
            if start <= fault.address < end and path == fault.mapping and fault.cause == "file":
                assert fault.offset == (fault.address & ~0xFFF) - start + offset
    touched: dict[int, list[str]] = {}
    for fault in seen:
        touched.setdefault(fault.address & ~0xFFF, []).append(fault.cause)
    unmapped = {"bash", "sh"}  # what maps over an address that it has unmapped may fault there again
    if os.path.basename(program) not in unmapped:
        again = {
            hex(page): causes for page, causes in touched.items() if len(causes) > 1 and causes[1:] != ["copy-on-write"]
        }
        assert not again


def test_page_tables_show_what_the_faults_made(compiled: Compiler) -> None:
    """At main every page with an entry was a fault, and every fault left an entry with the accessed bit."""
    program = compiled("hello", "static")
    faults: list[Fault] = []
    with Machine(fault_around=PAGE) as machine:
        machine.events.subscribe(faults.append, ["fault"])
        process = machine.spawn(program, [program], ENVIRONMENT)
        at_start = {at for at, _, entry in process.page_table.entries(0, 1 << 47) if entry & 1}
        process.run_until("main")
        now = {at: entry for at, _, entry in process.page_table.entries(0, 1 << 47) if entry & 1}
        user = {fault.address & ~0xFFF for fault in faults}
        special = {
            at for m in parse_maps(process.maps) if m.path.startswith("[v") for at in range(m.start, m.end, PAGE)
        }
        assert set(now) - special <= user | at_start
        assert user - special <= set(now)
        for at in user & set(now):
            assert now[at] & 0x20, hex(at)

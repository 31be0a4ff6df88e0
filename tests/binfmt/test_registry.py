"""The search through the handlers, the kernel's rules as data, and the names of things."""

from __future__ import annotations

import subprocess
import sys
from errno import EIO, ENOEXEC

import pytest

from loadstone.binfmt import names
from loadstone.binfmt.plan import ElfPlan, Plan, ScriptPlan, Source
from loadstone.binfmt.registry import HANDLERS, prepare_binprm, search_binary_handler
from loadstone.binfmt.rules import FormatRules
from loadstone.binfmt.source import BytesSource
from loadstone.errors import LinuxError
from support import elfbuilder as eb


def test_the_buffer_is_padded() -> None:
    assert prepare_binprm(BytesSource(b"#!")) == b"#!" + bytes(254)
    assert len(prepare_binprm(BytesSource(bytes(9999)), FormatRules(buffer_size=128))) == 128


def test_a_short_buffer_cuts_paths_sooner() -> None:
    """BINPRM_BUF_SIZE was 128 before Linux 5.1."""
    line = BytesSource(b"#!/" + b"i" * 130 + b"\n")
    assert isinstance(search_binary_handler(line), ScriptPlan)
    with pytest.raises(LinuxError):
        search_binary_handler(line, FormatRules(buffer_size=128))


def test_the_first_handler_that_does_not_answer_enoexec_decides() -> None:
    asked = []

    def refuse(head: bytes, source: Source, rules: FormatRules) -> Plan:
        asked.append("refuse")
        raise LinuxError(ENOEXEC)

    def fail(head: bytes, source: Source, rules: FormatRules) -> Plan:
        asked.append("fail")
        raise LinuxError(EIO, "broken")

    with pytest.raises(LinuxError) as caught:
        search_binary_handler(BytesSource(b"x"), handlers=(("a", refuse), ("b", fail), ("c", refuse)))
    assert caught.value.errno == EIO
    assert asked == ["refuse", "fail"]


def test_a_kernel_without_ia32_emulation_says_so() -> None:
    source = BytesSource(eb.static(32))
    assert isinstance(search_binary_handler(source), ElfPlan)
    with pytest.raises(LinuxError, match="IA-32") as caught:
        search_binary_handler(source, FormatRules(ia32=False))
    assert caught.value.errno == ENOEXEC


def test_program_headers_may_fill_a_page_only_on_older_kernels() -> None:
    source = BytesSource(eb.elf([eb.Entry(vaddr=0x400000)] * 74))
    assert isinstance(search_binary_handler(source), ElfPlan)
    with pytest.raises(LinuxError, match="73"):
        search_binary_handler(source, FormatRules(max_program_headers_size=4096))


def test_a_larger_address_space_takes_larger_segments() -> None:
    entry = eb.Entry(vaddr=0x400000, filesz=0, memsz=1 << 50)
    source = BytesSource(eb.elf([entry]))
    for size, sound in ((0x7FFFFFFFF000, False), (0xFFFFFFFFFFF000, True)):
        plan = search_binary_handler(source, FormatRules(task_size_64=size))
        assert isinstance(plan, ElfPlan)
        assert (plan.segments[0].error is None) == sound


def test_names() -> None:
    assert names.program_header_type(1) == "LOAD"
    assert names.program_header_type(0x6474E551) == "GNU_STACK"
    assert names.program_header_type(0x60000002) == "LOOS+0x2"
    assert names.program_header_type(0x70000001) == "LOPROC+0x1"
    assert names.property_name(0xC0008002) == "GNU_PROPERTY_X86_ISA_1_NEEDED"
    assert names.property_name(7) == "GNU property 0x7"
    assert names.isa(183) == "aarch64"
    assert names.isa(9999) == "EM_9999"
    assert names.file_type(3) == "DYN"


def test_the_handlers_have_the_kernels_order() -> None:
    assert [name for name, _ in HANDLERS] == ["load_script", "load_elf_binary", "compat load_elf_binary"]


def test_imports_are_lean() -> None:
    code = "import sys; before = set(sys.modules); import loadstone.binfmt.registry; print(*set(sys.modules) - before)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    allowed = {"__future__", "errno", "struct", "_struct", "typing", "collections.abc"}
    heavy = {"dataclasses", "inspect", "pathlib", "re", "enum", "logging", "json", "subprocess", "ctypes"} & set(found)
    typing_needs = {"re", "enum"}  # CPython 3.11's own typing imports re
    assert not heavy - typing_needs - allowed

"""The story's arithmetic, against the program headers of compiled programs."""

from __future__ import annotations

import errno
import io
import re
import struct
from pathlib import Path

import pytest

import loadstone
from loadstone.errors import LinuxError
from loadstone.observe.object_file import read_object
from loadstone.report.explain import write_failure, write_story
from support import elfbuilder as eb
from support.compilers import Compiler

LARGE = "char large[10 << 20];\nint initialised = 1;\nint main(void) { return large[5]; }\n"


def story(path: str, width: int = 80, argv: list[str] | None = None) -> str:
    out = io.StringIO()
    write_story(loadstone.explain(path, argv or [path], ["HOME=/home/user", "PATH=/usr/bin"]), out, width)
    return out.getvalue()


@pytest.mark.parametrize("variant", ["pie", "no-pie", "static", "static-pie"])
def test_what_bss_costs(variant: str, compiled: Compiler) -> None:
    program = compiled(LARGE, variant)
    found = read_object(program)
    assert found is not None
    segment = next(s for s in found.segments if s.memory_size > s.file_size)
    text = story(program)
    costs = " ".join(text.partition("What .bss costs")[2].partition("The address space")[0].split())
    assert f"p_memsz - p_filesz = {segment.memory_size:#x} - {segment.file_size:#x} = 10 MiB" in costs
    file_end = -(-(segment.address + segment.file_size) // 4096)
    pages = -(-(segment.address + segment.memory_size) // 4096) - file_end
    assert f"{pages:,} pages of anonymous memory are promised" in costs


def test_the_notes_example_word_by_word(compiled: Compiler) -> None:
    program = compiled("int main(void) { return 0; }\n", "no-pie")
    image = loadstone.explain(program, ["prog", "123"], ["HOME=/home/user", "PATH=/usr/bin"])
    out = io.StringIO()
    write_story(image, out, 110)
    table = out.getvalue().partition("The initial stack")[2]
    rows = re.findall(r"^ +([0-9a-f]{12}) +(\d+)  (.+?)  +(.+)$", table, re.MULTILINE)
    at = image.pointer
    for address, size, _, _ in rows:  # every byte once, from the stack pointer to the top
        assert int(address, 16) == at
        at += int(size)
    assert at == image.stack.top
    shown = [(what, value) for _, _, what, value in rows]
    assert shown[0] == ("argc", "2")
    strings = {what: value for what, value in shown if what.endswith("string")}
    assert strings["argv[1] string"] == "'123'"
    assert strings["envp[0] string"] == "'HOME=/home/user'"
    target = next(int(address, 16) for address, _, what, _ in rows if what == "envp[1] string")
    assert dict(shown)["envp[1]"] == f"{target:#x}  -> 'PATH=/usr/bin'"


def test_gnu_properties_are_named(tmp_path: Path) -> None:
    """A note packed by hand: IBT and SHSTK, bits 0 and 1 of the feature word (x86-64 psABI)."""
    note = struct.pack("<III", 4, 16, 5) + b"GNU\0" + struct.pack("<III4x", 0xC0000002, 4, 3)
    entries = [eb.Entry(vaddr=0x400000), eb.Entry(eb.GNU_PROPERTY, eb.R, 0x900, 0x400900, len(note))]
    path = tmp_path / "program"
    path.write_bytes(eb.elf(entries, contents={0x900: note}, size=0x3000))
    path.chmod(0o755)
    assert "PT_GNU_PROPERTY (1) holds GNU_PROPERTY_X86_FEATURE_1_AND 0x3:" in " ".join(story(str(path)).split())


@pytest.mark.parametrize("width", [60, 80, 110])
def test_tables_keep_within_the_width(width: int) -> None:
    text = story("/bin/ls", width)
    free = (
        "modulo",
        "pages",
        "file ",
        "format",
        "zeros",
        "rounding",
        "address",
        "interpreter",
        "first",
        "resident",
        "load",
        "7ff",
        "555",
    )
    for line in text.splitlines():
        assert len(line) <= width or line.strip().startswith(free), line


def test_a_dynamic_program_is_told_of_the_linker_and_rdx() -> None:
    text = " ".join(story("/bin/ls").split())
    assert "The dynamic linker runs first" in text
    assert "_dl_fini" in text
    assert "rdx 0x0 " in text


def test_a_static_program_has_no_interpreter(compiled: Compiler) -> None:
    text = story(compiled("int main(void) { return 0; }\n", "static"))
    assert "the kernel jumps to the program itself" in text
    assert "RDX 0: nothing to register" in " ".join(text.split())


def test_failure_is_one_paragraph(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"\x7fELF" + bytes(100))
    path.chmod(0o755)
    with pytest.raises(LinuxError) as caught:
        loadstone.explain(str(path))
    out = io.StringIO()
    write_failure(caught.value, str(path), out, 200)
    assert "ENOEXEC" in out.getvalue()
    assert "\n\n" not in out.getvalue()
    out = io.StringIO()
    write_failure(LinuxError(12, "no room", fatal_signal=9), "/x", out, 200)
    assert "SIGKILL" in out.getvalue()
    assert "point of no return" in out.getvalue()


def test_failure_of_a_missing_file_says_so() -> None:
    out = io.StringIO()
    write_failure(LinuxError(errno.ENOENT), "./absent", out, 200)
    assert out.getvalue().startswith("./absent cannot be executed: there is no such file. ")

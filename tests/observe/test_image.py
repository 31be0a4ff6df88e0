"""The image's schema, against readelf's view of the file (through pyelftools) and the real kernel."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

import pytest
from elftools.elf.elffile import ELFFile

from loadstone.errors import LinuxError
from loadstone.observe.image import Image, failure_to_dict
from loadstone.verify.native import native_image
from support.exec_world import HostWorld

KEYS = [
    "schema", "path", "format", "isa", "interpreter", "entry", "start", "brk", "maps", "auxv", "stack", "registers",
    "segments", "sections", "stages",
]  # fmt: skip
PROGRAM = "/bin/ls"


@pytest.fixture
def world() -> Iterator[HostWorld]:
    here = HostWorld()
    yield here
    here.close()


def test_schema(world: HostWorld) -> None:
    image = Image(world.exec(PROGRAM, [b"ls", b"-l"], [b"A=\xff"]))
    data = image.to_dict()
    assert list(data) == KEYS
    assert data["schema"] == "loadstone/image/1"
    assert (data["path"], data["format"], data["isa"]) == (PROGRAM, "elf64", "x86_64")
    assert list(data["maps"][0]) == ["start", "end", "perms", "offset", "path"]
    assert list(data["stack"]) == ["pointer", "top", "bytes", "layout"]
    assert list(data["stack"]["layout"][0]) == ["address", "size", "what", "value"]
    assert list(data["stages"][0]) == ["function", "step", "text"]
    json.loads(json.dumps(data))  # surrogate escapes survive as escapes


def test_against_the_kernel(world: HostWorld) -> None:
    data = Image(world.exec(PROGRAM, [b"ls", b"-l"], [b"A=1"])).to_dict()
    native = native_image(PROGRAM, [b"ls", b"-l"], [b"A=1"])
    expected = [
        {"start": m.start, "end": m.end, "perms": m.perms, "offset": m.offset, "path": m.path} for m in native.mappings
    ]
    assert data["maps"] == expected
    assert [(key, value) for _, key, value in data["auxv"]] == [*native.auxiliary_vector, (0, 0)]
    assert data["auxv"][0][0] == "AT_SYSINFO_EHDR"
    assert data["registers"] == {key: value for key, value in native.registers.items() if key != "orig_rax"}
    assert data["start"] == native.pc
    assert data["stack"]["pointer"] == native.stack_pointer
    assert len(data["stack"]["bytes"]) == 2 * len(native.stack)
    assert data["brk"] == native.stat["start_brk"]


def test_segments_and_sections_against_the_file(world: HostWorld) -> None:
    data = Image(world.exec(PROGRAM)).to_dict()
    with open(PROGRAM, "rb") as file:
        elf = ELFFile(file)
        for ours, theirs in zip(data["segments"], elf.iter_segments(), strict=True):
            assert ours == {
                "type": theirs["p_type"] if isinstance(theirs["p_type"], str) else ours["type"],
                **{
                    key: theirs[f"p_{key}"] for key in ("flags", "offset", "vaddr", "paddr", "filesz", "memsz", "align")
                },
            }
        for ours, theirs in zip(data["sections"], elf.iter_sections(), strict=True):
            assert (ours["name"], ours["type"], ours["address"], ours["offset"], ours["size"]) == (
                theirs.name, theirs["sh_type"], theirs["sh_addr"], theirs["sh_offset"], theirs["sh_size"],
            )  # fmt: skip
        assert data["entry"] == elf["e_entry"] + 0x555555554000


def test_arithmetic(world: HostWorld) -> None:
    image = Image(world.exec(PROGRAM))
    rows = image.arithmetic()
    assert all(row.congruent for row in rows)
    assert [row.holds_header for row in rows] == [True, *[False] * (len(rows) - 1)]
    starts = {mapping.start for mapping in image.maps}
    assert rows[0].start in starts and rows[0].start == image.bias
    for row in rows:
        assert row.start <= row.file_end <= row.end


def test_what_main_will_get(world: HostWorld) -> None:
    image = Image(world.exec(PROGRAM, [b"ls", b"x"], [b"A=1"]))
    words = {word.what: word for word in image.layout}
    assert (image.argc, image.argv, image.envp) == (2, words["argv[0]"].address, words["envp[0]"].address)


def test_it_outlives_the_machine() -> None:
    world = HostWorld()
    built = world.exec(PROGRAM)
    image = Image(built)
    sections = image.sections
    built.space.release()
    world.close()
    assert image.to_dict()["sections"] and sections


def test_failures() -> None:
    error = failure_to_dict(LinuxError(8, "no handler takes it"))
    assert error["error"] == {
        "errno": "ENOEXEC", "signal": None, "message": f"{os.strerror(8)} (ENOEXEC): no handler takes it",
    }  # fmt: skip
    assert failure_to_dict(LinuxError(22, "", 11))["error"]["signal"] == "SIGSEGV"

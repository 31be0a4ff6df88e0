"""What `--untrusted` shows is at least what ldd says a program loads, and bounded for hostile files."""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from loadstone.observe.needed import MOST_FILES, needed_files
from support.compilers import Compiler


@pytest.mark.parametrize("program", ["/bin/ls", "/bin/bash", "/usr/bin/python3", "/usr/bin/gdb", "/bin/busybox"])
def test_every_library_of_ldd_is_there(program: str) -> None:
    if not os.path.exists(program) or shutil.which("ldd") is None:
        pytest.skip(f"{program} or ldd is not installed")
    told = subprocess.run(["ldd", program], capture_output=True, text=True, check=False).stdout
    libraries = re.findall(r"(/\S+) \(0x", told)
    found = needed_files(program)
    assert found[0] == program
    assert not set(libraries) - set(found)


def test_a_script_needs_its_interpreter(tmp_path: Path) -> None:
    (tmp_path / "one").write_text("#!/bin/sh -e\n")
    (tmp_path / "two").write_text(f"#! {tmp_path}/one\n")
    found = needed_files(str(tmp_path / "two"))
    assert found[:3] == [f"{tmp_path}/two", f"{tmp_path}/one", "/bin/sh"]
    assert any("libc.so" in path for path in found)


def test_runpath_with_origin(compiled: Compiler, tmp_path: Path) -> None:
    library = compiled("int answer(void) { return 42; }\n", "pie", "-shared", "-fPIC")
    shutil.copy(library, tmp_path / "libanswer.so")
    text = "int answer(void);\nint main(void) { return answer() - 42; }\n"
    program = compiled(text, "pie", f"-L{tmp_path}", "-lanswer", "-Wl,-rpath,$ORIGIN/libs")
    shutil.copy(program, tmp_path / "program")
    (tmp_path / "libs").mkdir()
    shutil.copy(library, tmp_path / "libs" / "libanswer.so")
    assert f"{tmp_path}/libs/libanswer.so" in needed_files(str(tmp_path / "program"))


def test_what_is_no_program_needs_itself(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("#!\n")
    assert needed_files(str(tmp_path / "text"))[0] == str(tmp_path / "text")
    assert needed_files(str(tmp_path / "missing"))[0] == str(tmp_path / "missing")
    assert needed_files("/dev/zero")[0] == "/dev/zero"


def test_hostile_files_end(compiled: Compiler, tmp_path: Path) -> None:
    data = Path(compiled("int main(void) { return 0; }\n", "pie")).read_bytes()
    chance = random.Random(7)
    target = tmp_path / "mutant"
    for _ in range(150):
        mutant = bytearray(data)
        for _ in range(6):
            mutant[chance.choice((chance.randrange(1024), chance.randrange(len(data))))] = chance.choice(
                (0, 0xFF, 0x7F, 1)
            )
        target.write_bytes(mutant)
        assert len(needed_files(str(target))) <= MOST_FILES + 600

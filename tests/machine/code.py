"""Machine code to test with: that of real programs, disassembled by capstone, and what the host's assembler makes."""

from __future__ import annotations

import functools
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

LIBRARIES = ("/lib64", "/lib/x86_64-linux-gnu", "/usr/lib64", "/usr/lib", "/lib")


def find(name: str) -> str:
    """A program of the PATH or a library of the system's; skips the test if there is none."""
    found = shutil.which(name)
    for folder in LIBRARIES:
        if found is None and Path(folder, name).exists():
            found = str(Path(folder, name))
    if found is None:
        pytest.skip(f"there is no {name} here")
    if Path(found).read_bytes()[:4] != b"\x7fELF":
        pytest.skip(f"{found} is not an ELF file")
    return found


def text_of(path: str) -> tuple[int, bytes]:
    """Address and bytes of the .text section."""
    from elftools.elf.elffile import ELFFile

    with open(path, "rb") as file:
        section = ELFFile(file).get_section_by_name(".text")
        assert section is not None, f"{path} has no .text"
        return section["sh_addr"], section.data()


def lengths(code: bytes, address: int = 0) -> Iterator[tuple[int, int, str]]:
    """(offset, length, mnemonic) of every instruction, by capstone; bytes that it does not know are left out."""
    import capstone

    engine = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    engine.skipdata = True
    for at, size, mnemonic, _ in engine.disasm_lite(code, address):
        if mnemonic != ".byte":
            yield at - address, size, mnemonic


@functools.cache
def assemble(text: str, origin: int = 0) -> bytes:
    """x86-64 assembly (Intel syntax) as machine code that is linked to run at `origin`."""
    if not (shutil.which("as") and shutil.which("ld") and shutil.which("objcopy")):
        pytest.skip("binutils are not installed")
    with tempfile.TemporaryDirectory() as folder:
        source, objects, linked, binary = (f"{folder}/{name}" for name in ("a.s", "a.o", "a.elf", "a.bin"))
        Path(source).write_text(".intel_syntax noprefix\n.globl _start\n_start:\n" + text + "\n")
        subprocess.run(["as", "--64", "-o", objects, source], check=True)
        subprocess.run(["ld", f"-Ttext={origin:#x}", "-o", linked, objects], check=True, stderr=subprocess.DEVNULL)
        subprocess.run(["objcopy", "-O", "binary", "-j", ".text", linked, binary], check=True)
        return Path(binary).read_bytes()

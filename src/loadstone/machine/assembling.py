"""Machine code from its source, by the host's compiler: for developers and tests. A run takes the bytes as they are."""

from __future__ import annotations

import os
import subprocess
import tempfile


def assemble(source: str) -> tuple[bytes, dict[str, int]]:
    """The code of a source file beside this module, and the offset of each of its symbols."""
    path = os.path.join(os.path.dirname(__file__), source)
    with tempfile.TemporaryDirectory() as folder:
        objects, binary = os.path.join(folder, "code.o"), os.path.join(folder, "code.bin")
        subprocess.run(["gcc", "-x", "assembler", "-c", path, "-o", objects], check=True)
        subprocess.run(["objcopy", "-O", "binary", "-j", ".text", objects, binary], check=True)
        listed = subprocess.run(["nm", objects], check=True, capture_output=True, text=True).stdout
        symbols = {name: int(value, 16) for value, _, name in map(str.split, listed.splitlines())}
        with open(binary, "rb") as file:
            return file.read(), symbols


def print_code(code: bytes, offsets: dict[str, int]) -> None:
    """As the modules have it: the bytes in hexadecimal, and where its parts begin."""
    for start in range(0, len(code), 32):
        print("    " + code[start : start + 32].hex(" ", 4))
    print({name: hex(offset) for name, offset in offsets.items()})

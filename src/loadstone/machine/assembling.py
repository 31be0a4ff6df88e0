"""Machine code from its source, by the host's compiler: for developers and tests. A run takes the bytes as they are.

`python -m loadstone.machine.assembling entry.s` prints what the module that has the bytes of entry.s should have.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile

_BYTES_A_LINE = 32


def assemble(source: str) -> tuple[bytes, dict[str, int]]:
    """The code of a source file beside this module, and the offset of each of its symbols."""
    with tempfile.TemporaryDirectory() as folder:
        objects, binary = os.path.join(folder, "code.o"), os.path.join(folder, "code.bin")
        here = os.path.dirname(os.path.abspath(__file__))  # where it includes others from
        subprocess.run(["gcc", "-x", "assembler", "-c", source, "-o", objects], check=True, cwd=here)
        subprocess.run(["objcopy", "-O", "binary", "-j", ".text", objects, binary], check=True)
        listed = subprocess.run(["nm", objects], check=True, capture_output=True, text=True).stdout
        symbols = {name: int(value, 16) for value, _, name in map(str.split, listed.splitlines())}
        with open(binary, "rb") as file:
            return file.read(), symbols


def _print(code: bytes, symbols: dict[str, int]) -> None:
    """As the modules have it: the bytes in hexadecimal, and where its parts begin. (In capitals are constants.)"""
    for start in range(0, len(code), _BYTES_A_LINE):
        print("    " + code[start : start + _BYTES_A_LINE].hex(" ", 4))
    labels = [(offset, name) for name, offset in symbols.items() if not name.isupper() and offset < len(code)]
    for offset, name in sorted(labels):
        print(f'    "{name}": {offset:#x},')


if __name__ == "__main__":
    _print(*assemble(sys.argv[1]))

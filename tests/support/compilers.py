"""Compile the C programs of the tests, once a session, in every way a program is linked."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

SOURCES = Path(__file__).resolve().parent.parent / "programs" / "sources"

# name -> (compiler, options). The options come after the source, as for a linker.
VARIANTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "pie": ("gcc", ("-pie", "-fPIE")),
    "no-pie": ("gcc", ("-no-pie", "-fno-pie")),
    "static": ("gcc", ("-static", "-no-pie", "-fno-pie")),
    "static-pie": ("gcc", ("-static-pie", "-fPIE")),
    "noseparate-code": ("gcc", ("-no-pie", "-fno-pie", "-Wl,-z,noseparate-code")),
    "musl": ("musl-gcc", ()),
    "musl-static": ("musl-gcc", ("-static", "-no-pie", "-fno-pie")),
    "musl-static-pie": ("musl-gcc", ("-static-pie", "-fPIE")),
}


class Compiler:
    """Compiles into one directory; asks the real compiler once for each program, variant and set of options."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def __call__(self, source: str, variant: str = "pie", *options: str) -> str:
        """The path of `sources/SOURCE.c` (or of C text that contains a newline) built as `variant`.

        Skips the test when the compiler is missing or cannot build the variant here (no static C library, say).
        """
        name, text = ("text", source) if "\n" in source else (source, (SOURCES / f"{source}.c").read_text())
        tool, how = VARIANTS[variant]
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
        key = hashlib.sha256("\0".join((text, tool, *how, *options)).encode()).hexdigest()[:12]
        program = self._directory / f"{name}-{variant}-{key}"
        if not program.exists():
            self._build(program, text, tool, (*how, *options), variant)
        return str(program)

    def _build(self, program: Path, text: str, tool: str, options: tuple[str, ...], variant: str) -> None:
        with tempfile.TemporaryDirectory(dir=self._directory) as scratch:
            source, result = Path(scratch, "program.c"), Path(scratch, "program")
            source.write_text(text)
            line = [tool, "-O1", "-g", "-w", "-o", str(result), str(source), *options]
            done = subprocess.run(line, capture_output=True, text=True, check=False)
            if done.returncode:
                last = (done.stderr.strip() or "no message").splitlines()[-1]
                if "error:" in done.stderr and "cannot find" not in done.stderr:
                    pytest.fail(f"{tool} does not compile {program.name}:\n{done.stderr}")
                pytest.skip(f"{tool} cannot link {variant} programs here: {last}")
            os.replace(result, program)  # whole or not at all: workers of one session share the directory

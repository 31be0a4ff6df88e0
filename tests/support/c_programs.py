"""The C programs of tests/linux/programs: their source, and what one prints here and natively."""

from __future__ import annotations

from pathlib import Path

from support.compilers import Compiler
from support.run import loadstone, native

_PLACE = Path(__file__).resolve().parent.parent / "linux" / "programs"
ASLEEP = (_PLACE / "asleep.h").read_text()
HEADER = (_PLACE / "check.h").read_text().replace('#include "asleep.h"', ASLEEP)


def source_of(name: str) -> str:
    """With the headers that they share in it, so that the text alone can be compiled."""
    text = (_PLACE / f"{name}.c").read_text()
    return text.replace('#include "check.h"', HEADER).replace('#include "asleep.h"', ASLEEP)


def both(name: str, compiled: Compiler, tmp_path: Path, variant: str = "pie") -> tuple[list[str], list[str]]:
    """What the program prints inside Loadstone and natively, each in an empty directory of its own."""
    program = compiled(source_of(name), variant)
    outputs = []
    for side in ("native", "loadstone"):
        here = tmp_path / side / "here"
        here.mkdir(parents=True)
        if side == "native":
            done = native(program, cwd=here)
        else:
            done = loadstone("run", "--fill-ahead", "off", "--", program, cwd=here)  # `touched` asks mincore
        assert done.status == 0, done.errors
        outputs.append(done.text.splitlines())
        if side == "loadstone":
            assert list(here.iterdir()) == []
    return outputs[1], outputs[0]

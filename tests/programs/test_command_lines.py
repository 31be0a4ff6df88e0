"""Command lines of more than one process: shells, pipes, build tools, interpreters that start programs.

Each script of scripts/processes runs inside Loadstone first, whose writes stay in its overlay, and then natively in the
same directory, so that even paths in the output are the same. A first line `# needs: PROGRAM…` skips the script where
one of them is not installed.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from support.run import assert_same, loadstone, native

SCRIPTS = sorted((Path(__file__).parent / "scripts" / "processes").iterdir())
NEEDS = "# needs: "
FILES = {
    "numbers": "".join(f"{n * 7919 % 1000}\n" for n in range(2000)),
    "words": "the quick brown fox jumps over the lazy dog\n" * 50 + "one more line\n",
    "hello.c": '#include <stdio.h>\nint main(void) { puts("hello"); return 7; }\n',
    "makefile": "all: a b c d\n\t@cat a b c d\na b c d:\n\t@echo made $@ > $@\nfail:\n\t@false\n",
}


@pytest.mark.parametrize("script", SCRIPTS, ids=[path.stem for path in SCRIPTS])
def test_command_line(script: Path, tmp_path: Path) -> None:
    text = script.read_text()
    first = text.partition("\n")[0]
    missing = (
        [p for p in first.removeprefix(NEEDS).split() if shutil.which(p) is None] if first.startswith(NEEDS) else []
    )
    if missing:
        pytest.skip(f"not installed: {' '.join(missing)}")
    for name, content in FILES.items():
        (tmp_path / name).write_text(content)
    before = sorted(os.listdir(tmp_path))
    got = loadstone("run", "/bin/bash", "-c", text, cwd=tmp_path)
    assert sorted(os.listdir(tmp_path)) == before, "the guest's writes reached the host"
    assert_same(got, native("/bin/bash", "-c", text, cwd=tmp_path))

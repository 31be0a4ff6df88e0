"""Tools that copy, pack, move, mark and edit files: what they print, their status, and the tree that they leave.

Each line of file_tools.txt is `PROGRAMS | COMMAND`: it is skipped where one of the programs is not installed. It runs
in a small tree natively, and then inside Loadstone in the same directory, which is handed over with `--rw`.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from support.run import Completed, assert_same, loadstone, native
from support.trees import snapshot

LINES = [line.split("| ", 1) for line in (Path(__file__).parent / "file_tools.txt").read_text().splitlines()]
TREE = """
mkdir -p d/e/f empty; echo one > a; echo two > b; seq 1000 > n; echo x > d/x; ln -s ../a d/l; ln a h
truncate -s 100000 sparse; echo end >> sparse; echo old > d/e/old; chmod 640 b
touch -d 2021-02-03 a b n d/x sparse d/e/f d/e d empty; touch -h -d 2021-02-03 d/l; touch -d 2020-01-01 d/e/old
"""


@pytest.mark.parametrize(("programs", "command"), LINES, ids=[f"{at}" for at in range(1, len(LINES) + 1)])
def test_file_tools(programs: str, command: str, tmp_path: Path) -> None:
    missing = [program for program in programs.split() if shutil.which(program) is None]
    if missing:
        pytest.skip(f"not installed: {' '.join(missing)}")
    wanted, theirs = _run(command, tmp_path, inside=False)
    got, ours = _run(command, tmp_path, inside=True)
    assert_same(got, wanted)
    assert ours == theirs


def _run(command: str, top: Path, *, inside: bool) -> tuple[Completed, object]:
    """Run the command in a new tree: what it gave, and the tree afterwards."""
    work = top / "work"
    work.mkdir()
    assert native("/bin/bash", "-c", TREE, cwd=work).status == 0
    if inside:
        done = loadstone("run", "--rw", str(top), "--", "/bin/bash", "-c", command, cwd=work)
    else:
        done = native("/bin/bash", "-c", command, cwd=work)
    after = snapshot(work, times=False)
    shutil.rmtree(work)
    return done, after

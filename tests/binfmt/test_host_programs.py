"""The plans of the host's own programs against the images the kernel makes of them, page by page."""

from __future__ import annotations

import os

import pytest

from support.elf_oracle import Planned, compare, native


def programs() -> list[str]:
    """The files of /usr/bin that someone may execute, scripts too, without set-user-ID ones (their image is random)."""
    found = []
    for name in sorted(os.listdir("/usr/bin")):
        path = f"/usr/bin/{name}"
        runs = os.path.isfile(path) and not os.path.islink(path) and os.access(path, os.R_OK | os.X_OK)
        if runs and not os.stat(path).st_mode & 0o6000:
            found.append(path)
    return found


def check(paths: list[str]) -> None:
    for path in paths:
        planned = Planned(path)
        if planned.script is None:
            assert compare(path) == "ok", path
        else:
            assert native(path)[0] in ("ok", "ENOENT"), path
            assert planned.script.interpreter.startswith(b"/"), path


def test_forty_programs() -> None:
    found = programs()
    if len(found) < 20:
        pytest.skip("too few programs in /usr/bin")
    check(found[:: max(1, len(found) // 40)])


@pytest.mark.slow
def test_every_program() -> None:
    check(programs())

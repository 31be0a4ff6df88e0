"""PROGRAM is searched as bash searches it (dash says 127 where a file of the name may not be executed)."""

from __future__ import annotations

import os
import shutil
import subprocess
from errno import EACCES, ENOENT
from pathlib import Path

import pytest

from loadstone.cli.programs import HostView, find_program, search_path, status_of
from loadstone.errors import LinuxError

SCRIPT = '#!/bin/sh\nprintf "%s" "$0"\n'


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Directories with a program `tool` in `good`, one without permission in `closed`, a directory `tool` in `odd`."""
    for name in ("good", "closed", "odd/tool", "empty"):
        (tmp_path / name).mkdir(parents=True)
    for name, mode in (("good", 0o755), ("closed", 0o644)):
        (tmp_path / name / "tool").write_text(SCRIPT)
        (tmp_path / name / "tool").chmod(mode)
    return tmp_path


def ours(name: str, search: str, cwd: Path) -> tuple[int, str]:
    try:
        return 0, find_program(name, search, HostView(cwd=str(cwd)))
    except LinuxError as error:
        return status_of(error), ""


def shells(name: str, search: str, cwd: Path) -> tuple[int, str]:
    shell = shutil.which("bash")
    if shell is None:
        pytest.skip("bash is not installed")
    line = [shell, "-c", f"PATH='{search}'; export PATH; {name}"]
    done = subprocess.run(line, cwd=cwd, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout


@pytest.mark.parametrize(
    "search",
    [
        "good",
        "empty:good",
        "closed:good",
        "odd:good",
        "closed:empty",
        "odd:empty",
        "empty",
        "missing:good",
        "good/tool:good",
        "closed",
    ],
)
def test_search_is_that_of_sh(place: Path, search: str) -> None:
    full = ":".join(str(place / part) for part in search.split(":"))
    assert ours("tool", full, place) == shells("tool", full, place)


@pytest.mark.parametrize("directory", ["good", "closed", "empty"])
def test_an_empty_element_is_the_current_directory(place: Path, directory: str) -> None:
    for search in (":/nowhere", "/nowhere:", "/nowhere::/elsewhere"):
        assert ours("tool", search, place / directory)[0] == shells("tool", search, place / directory)[0]


def test_a_slash_makes_it_a_path(place: Path) -> None:
    assert ours("./tool", "/nowhere", place / "good") == (0, "./tool")
    assert ours("good/tool", "/nowhere", place) == (0, "good/tool")


def test_errors() -> None:
    with pytest.raises(LinuxError) as none:
        find_program("", "/bin", HostView())
    assert none.value.errno == ENOENT
    assert status_of(LinuxError(ENOENT)) == 127
    assert status_of(LinuxError(EACCES)) == 126
    assert status_of(LinuxError(ENOENT, fatal_signal=9)) == 137


def test_which_path_is_searched() -> None:
    assert search_path({"PATH": "/a"}, {"PATH": "/b"}) == "/a"
    assert search_path({}, {"PATH": "/b"}) == "/b"
    assert search_path({}, {}) == "/bin:/usr/bin"
    assert search_path({"PATH": ""}, {"PATH": "/b"}) == ""


def test_root_and_binds_are_looked_into(place: Path) -> None:
    view = HostView(root=str(place), binds=[(str(place / "good"), "/mnt/bin")])
    assert view.host_path("/good/tool") == str(place / "good/tool")
    assert find_program("tool", "/empty:/good", view) == "/good/tool"
    assert find_program("tool", "/mnt/bin", view) == "/mnt/bin/tool"
    with pytest.raises(LinuxError):
        find_program("tool", str(place / "good"), view)
    (place / "bin").symlink_to("/good")
    (place / "bin2").mkdir()
    (place / "bin2" / "tool").symlink_to("/good/tool")  # leads elsewhere on the host; the guest will see /good/tool
    assert find_program("tool", "/bin2", view) == "/bin2/tool"


def test_directory_that_may_not_be_searched(place: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may search every directory")
    (place / "good").chmod(0)
    try:
        full = f"{place / 'good'}:{place / 'empty'}"
        assert ours("tool", full, place)[0] == shells("tool", full, place)[0]
    finally:
        (place / "good").chmod(0o755)

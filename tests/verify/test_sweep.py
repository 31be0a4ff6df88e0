"""`verify` on directories: what is found, and that many programs of this machine agree."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from loadstone.errors import HostError
from loadstone.verify.runner import IDENTICAL, REFUSED_ALIKE, Request, Result, Verifier
from loadstone.verify.sweep import Settings, distinct_files, find_programs, sweep

ENVIRONMENT = (b"HOME=/home/user", b"PATH=/usr/bin")


def requests(paths: list[str]) -> list[Request]:
    return [Request(path, (os.fsencode(path),), ENVIRONMENT) for path in paths]


def make(path: Path, text: bytes, mode: int) -> None:
    path.write_bytes(text)
    path.chmod(mode)


def test_what_counts_as_a_program(tmp_path: Path) -> None:
    below = tmp_path / "below"
    below.mkdir()
    make(tmp_path / "script", b"#!/bin/sh\n", 0o755)
    make(tmp_path / "elf", b"\x7fELF and no more", 0o711)
    make(below / "deep", b"#!", 0o500)
    make(tmp_path / "text", b"hello", 0o755)
    make(tmp_path / "not marked", b"#!/bin/sh\n", 0o644)
    os.symlink("script", tmp_path / "link")
    os.symlink("nothing", tmp_path / "dangling")
    os.symlink(below, tmp_path / "directory")
    os.mkfifo(tmp_path / "fifo", 0o755)
    found = find_programs([str(tmp_path)])
    assert [os.path.relpath(path, tmp_path) for path in found] == ["elf", "link", "script", "below/deep"]
    assert distinct_files(found) == 3
    with pytest.raises(HostError):
        find_programs([str(tmp_path / "absent")])


def outcomes(results: list[Result]) -> list[tuple[str, str, str]]:
    return sorted((result.request.path, result.outcome, result.why) for result in results)


def test_programs_of_this_machine_in_two_processes() -> None:
    paths = find_programs(["/usr/bin"])
    chosen = paths[:: max(len(paths) // 40, 1)]
    results = list(sweep(requests(chosen), Settings(), 2))
    assert len(results) == len(chosen) >= min(len(paths), 40)
    assert [result for result in results if not result.passed] == []
    assert sum(result.outcome == IDENTICAL for result in results) >= len(chosen) - 3
    alone = list(sweep(requests(chosen[:5]), Settings(), 1))
    paths_alone = {result.request.path for result in alone}
    assert outcomes(alone) == [row for row in outcomes(results) if row[0] in paths_alone]


def test_a_process_that_fails_ends_the_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Verifier, request: Request) -> Result:
        raise HostError("no ptrace here")

    monkeypatch.setattr(Verifier, "verify", fail)
    with pytest.raises(HostError, match="no ptrace"):
        list(sweep(requests(["/bin/true", "/bin/ls"]), Settings(), 2))


@pytest.mark.slow
def test_shared_objects_given_an_execute_bit(tmp_path: Path) -> None:
    """Programs that nobody wrote as such: without an interpreter, of every size and alignment."""
    compared = 0
    with Verifier() as verifier:
        for place, _, names in os.walk("/usr/lib"):
            for name in sorted(names):
                path = os.path.join(place, name)
                if ".so" not in name or os.path.islink(path) or os.access(path, os.X_OK) or not is_elf(path):
                    continue
                copy = tmp_path / f"{compared}"  # never the same name twice: the machine remembers files
                shutil.copyfile(path, copy)
                copy.chmod(0o755)
                result = verifier.verify(Request(str(copy), (b"x",), ENVIRONMENT))
                assert (result.outcome, result.differences) == (IDENTICAL, ()), path
                copy.unlink()
                compared += 1
    assert compared > 100


def is_elf(path: str) -> bool:
    with open(path, "rb") as file:
        return file.read(4) == b"\x7fELF"


@pytest.mark.slow
@pytest.mark.parametrize("limit", [None, 256 << 10, (1 << 64) - 1], ids=["as here", "small stack", "unlimited stack"])
def test_all_programs_of_this_machine(limit: int | None) -> None:
    paths = find_programs(["/usr/bin", "/usr/sbin", "/usr/lib"])
    results = list(sweep(requests(paths), Settings(stack_limit=limit), len(os.sched_getaffinity(0))))
    assert len(results) == len(paths) > 100
    assert [(result.request.path, result.differences) for result in results if not result.passed] == []
    assert sum(result.outcome == REFUSED_ALIKE for result in results) < len(paths) // 20

"""Random operations on the real kernel and on a Vfs: the same results, the same tree at the end."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from loadstone.vfs.assemble import assemble
from loadstone.vfs.inode import Credentials
from support.trees import snapshot
from vfs.twins import DEEP, Choice, Guest, Native, build, tree

OPERATIONS = 400


def pair(tmp_path: Path) -> tuple[str, str]:
    """Two equal trees."""
    native, lower = str(tmp_path / "n"), str(tmp_path / "l")
    os.makedirs(native)
    build(native)
    subprocess.run(["cp", "-a", native, lower], check=True)
    os.chmod(tmp_path, 0o755)
    return native, lower


def compare(native: Native, guest: Guest, choice: Choice) -> None:
    for step in range(OPERATIONS):
        operation = choice.operation(native.files)
        expected = native.do(*operation)
        got = guest.do(*operation)
        assert got == expected, f"step {step}: {operation[0]}{operation[1:]!r:.200}"


def contents(side: Native | Guest, names: list[str]) -> dict[str, object]:
    found = {}
    for name in names:
        number = side.do("open", name, os.O_RDONLY | os.O_NONBLOCK, 0)
        if isinstance(number, int) and side.files[number - 1] is not None:
            found[name] = side.do("read", number - 1, 200_000, 0)
    return found


def run(native: Native, guest: Guest, seed: int, safe_modes: bool) -> None:
    try:
        compare(native, guest, Choice(seed, safe_modes))
        native.who = guest.who = Credentials(os.geteuid(), os.getegid(), tuple(os.getgroups()))
        expected = tree(native.do)
        assert tree(guest.do) == expected
        assert contents(guest, sorted(expected)) == contents(native, sorted(expected))
    finally:
        native.close()
        guest.close()


@pytest.fixture
def trees(tmp_path: Path) -> Iterator[Path]:
    """A directory for both trees, which can be removed afterwards, whatever modes are left in it."""
    yield tmp_path
    for directory, names, _ in os.walk(tmp_path):
        for name in names:
            path = os.path.join(directory, name)
            if not os.path.islink(path):
                os.chmod(path, 0o700)


def who_runs() -> Credentials:
    return Credentials(os.geteuid(), os.getegid(), tuple(os.getgroups()))


@pytest.mark.parametrize("seed", range(40))
def test_overlay_does_what_the_kernel_does_and_leaves_the_host_alone(trees: Path, seed: int) -> None:
    top, lower = pair(trees)
    before = snapshot(trees / "l")
    vfs = assemble(None, host_root=lower)
    who = who_runs()
    guest = Guest(vfs, vfs.resolve("/" + DEEP), who)
    run(Native(f"{top}/{DEEP}", who), guest, seed, False)
    assert snapshot(trees / "l") == before


@pytest.mark.parametrize("seed", range(15))
def test_overlay_does_what_the_kernel_does_for_another_user(trees: Path, seed: int) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    top, lower = pair(trees)
    for directory in (trees.parent.parent, trees.parent, trees):
        os.chmod(directory, 0o755)
    vfs = assemble(None, host_root=lower)
    who = Credentials(65534, 65534, (100,))
    guest = Guest(vfs, vfs.resolve("/" + DEEP), who)
    run(Native(f"{top}/{DEEP}", who), guest, 1000 + seed, False)


@pytest.mark.parametrize("seed", range(30))
def test_rw_directory_does_what_the_kernel_does(trees: Path, seed: int) -> None:
    top, lower = pair(trees)
    vfs = assemble(None, host_root=lower, rw=[lower])
    who = who_runs()
    guest = Guest(vfs, vfs.resolve("/" + DEEP), who)
    run(Native(f"{top}/{DEEP}", who), guest, 2000 + seed, os.geteuid() != 0)
    written = Native(f"{lower}/{DEEP}", who)
    reference = Native(f"{top}/{DEEP}", who)
    assert tree(written.do) == tree(reference.do)
    assert vfs.discarded() == []

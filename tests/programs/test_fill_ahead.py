"""Filling ahead as programs see it, on each core: not at all. Contents, faults saved, memory that runs short."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import pytest

from loadstone import Machine
from loadstone.machine.physical import FRAME_SIZE
from machine.engines import NAMES, maker
from support.compilers import Compiler
from support.run import loadstone, native

AREAS = 60  # of walks.c: two thirds of what is filled ahead in them is never touched


class Ran(NamedTuple):
    """What a run cost."""

    status: int
    faults: int
    peak: int  # frames
    filled: int
    taken_back: int


def run(program: str, engine: str, fill_ahead: int | None, frames: int = 1 << 18) -> Ran:
    """walks.c in a machine of so many frames."""
    maker(engine)  # skips where there is none
    memory = frames * FRAME_SIZE
    with Machine(engine=engine, memory=memory, fill_ahead=fill_ahead, keep_faults=False) as machine:
        process = machine.spawn(program, [program, str(AREAS)])
        status = process.run()
        ahead = machine.fill_ahead
        return Ran(
            128 + status.signal if status.signal else status.code, process.inner.space.minor_faults,
            machine.physical.peak, ahead.pages if ahead else 0, ahead.taken_back if ahead else 0,
        )  # fmt: skip


@pytest.fixture(scope="module")
def walks(compiled: Compiler) -> str:
    return compiled("walks", "static")


@pytest.mark.parametrize("engine", NAMES)
def test_fewer_faults_and_the_same_memory(engine: str, walks: str) -> None:
    assert native(walks, str(AREAS)).status == 0
    without, ahead = run(walks, engine, 0), run(walks, engine, None)
    assert (without.status, ahead.status) == (0, 0)
    assert ahead.faults < without.faults / 2
    assert (without.filled, ahead.taken_back) == (0, 0)
    # A walk has touched at least as much as was filled in vain.
    assert ahead.peak < 2 * without.peak


@pytest.mark.parametrize("engine", NAMES)
def test_the_limit_bounds_what_one_fault_fills(engine: str, walks: str) -> None:
    few, many = run(walks, engine, 4), run(walks, engine, 512)
    assert (few.status, many.status) == (0, 0)
    assert few.faults > many.faults
    assert few.filled <= 3 * few.faults


@pytest.mark.parametrize("engine", NAMES)
def test_a_machine_that_is_just_large_enough_stays_so(engine: str, walks: str) -> None:
    """What is filled ahead there is taken back before anybody is killed; one that is too small is too small."""
    without = run(walks, engine, 0)
    assert run(walks, engine, 512).peak > without.peak + 1000  # it would not fit
    ahead = run(walks, engine, 512, without.peak + 64)
    assert ahead.status == 0
    assert ahead.taken_back > 0
    assert run(walks, engine, 0, without.peak - 400).status == run(walks, engine, 512, without.peak - 400).status == 137


def test_a_record_has_the_faults_of_the_kernel_unless_asked(walks: str, tmp_path: Path) -> None:
    """Off while somebody listens to faults; asked for all the same, the record's first line says so."""

    def record(*options: str) -> tuple[int, list[int]]:
        file = tmp_path / "-".join(("record", *options))
        assert loadstone("run", "--record", str(file), *options, walks).status == 0
        first, *lines = (json.loads(line) for line in file.read_text().splitlines())
        return first["fill_ahead"], [
            line["around"] for line in lines if line["event"] == "fault" and not line["mapping"]
        ]

    limit, beside = record()
    assert limit == 0
    assert set(beside) == {0}
    assert record("--deterministic") == (0, beside)
    limit, beside = record("--fill-ahead", "64")
    assert limit == 64
    assert max(beside) == 63


def test_the_options_are_checked() -> None:
    for wrong in ("1", "513", "x", "-1"):
        done = loadstone("run", "--fill-ahead", wrong, "/bin/true")
        assert done.status == 125
        assert "--fill-ahead" in done.errors

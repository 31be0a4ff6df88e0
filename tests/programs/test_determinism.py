"""`--deterministic`: the same bytes on every run, whatever the host's clock, load and randomness do."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

import pytest

from support.compilers import Compiler
from support.run import ENVIRONMENT, Completed, loadstone

PROGRAMS = {
    "true": ["/bin/true"],
    "ls": ["/bin/ls", "-laR", "."],
    "find": ["/usr/bin/find", "."],
    "date": ["/bin/date", "+%s.%N"],
    "random": ["/bin/bash", "-c", "echo $RANDOM $$ $PPID $SECONDS $EPOCHREALTIME; printf '%(%F %T)T\\n' -1"],
    "urandom": ["/usr/bin/od", "-x", "-N", "32", "/dev/urandom"],
    "python": [
        "/usr/bin/python3",
        "-c",
        "import os, time; print({str(i) for i in range(9)}, time.time(), os.getpid())",
    ],
    "mktemp": ["/bin/mktemp", "-u"],
    "maps": ["/bin/cat", "/proc/self/maps"],
    "stat": ["/usr/bin/stat", "/proc/self/status", "."],
}


def recorded(program: list[str], cwd: Path, record: Path, *options: str) -> tuple[Completed, bytes]:
    got = loadstone("run", "--deterministic", *options, "--record", str(record), "--", *program, cwd=cwd)
    return got, record.read_bytes()


@pytest.mark.parametrize("name", PROGRAMS)
def test_two_runs_are_byte_identical(name: str, here: Path, tmp_path: Path) -> None:
    for number in range(5):
        (here / f"file{number}").write_text("x" * number)
    first, first_record = recorded(PROGRAMS[name], here, tmp_path / "one")
    second, second_record = recorded(PROGRAMS[name], here, tmp_path / "two")
    assert first.status == 0, first.errors
    assert first == second
    assert first_record == second_record


@pytest.mark.parametrize("variant", ["pie", "static"])
def test_nothing_of_the_host_shows(variant: str, here: Path, tmp_path: Path, compiled: Compiler) -> None:
    """TSC, clocks, ids, randomness, timers, and a directory that was made anew: other inodes, times and order.

    Times of modification are input, as contents are (a compiled Python module is valid for one of them).
    """
    program = compiled("witness", variant)
    runs = []
    for number, names in enumerate((["a", "b", "c", "d"], ["c", "a", "d", "b"])):
        directory = here / "seen"
        directory.mkdir()
        for name in names:
            (directory / name).write_text(name)
            os.utime(directory / name, (10**9 + number, 10**9))
        os.utime(directory, (10**9 + number, 10**9))
        runs.append(recorded([program, str(directory)], here, tmp_path / f"record{number}"))
        shutil.rmtree(directory)
        (here / f"between{number}").write_text("takes an inode")
    assert runs[0][0].status == 0, runs[0][0].errors
    assert runs[0][0].text.splitlines() == runs[1][0].text.splitlines()
    assert runs[0][1] == runs[1][1]
    other, _ = recorded([program, str(here)], here, tmp_path / "other", "--seed", "9")
    assert other.text.splitlines()[10] != runs[0][0].text.splitlines()[10]  # the random bytes


def test_record_is_what_the_schema_says(here: Path, tmp_path: Path) -> None:
    _, record = recorded(["/bin/ls"], here, tmp_path / "record", "--seed", "7")
    header, *events = (json.loads(line) for line in record.decode("utf-8", "surrogateescape").splitlines())
    assert header["schema"] == "loadstone/events/1"
    assert {"version", "command", "environment", "cwd", "engine", "seed", "memory"} <= set(header)
    assert header["seed"] == 7
    assert [event["seq"] for event in events] == list(range(events[0]["seq"], events[0]["seq"] + len(events)))
    kinds = {event["event"] for event in events}
    assert {"exec", "fault", "syscall", "map", "exit"} <= kinds
    for event in events:
        if event["event"] == "fault":
            assert event["access"] in ("read", "write", "execute")
            assert event["mode"] in ("user", "kernel")
            assert event["cause"] in (
                "file", "anonymous", "zero-page", "copy-on-write", "shared", "stack", "swap", "protection",
            )  # fmt: skip
            assert event["address"] >= 0 and isinstance(event["major"], bool)
    assert [event["event"] for event in events].index("exit") == len(events) - 1


def test_another_seed_gives_other_random_bytes(here: Path) -> None:
    runs = [
        loadstone("run", "--deterministic", "--seed", seed, "/usr/bin/od", "-x", "-N", "16", "/dev/urandom", cwd=here)
        for seed in ("1", "2", "1")
    ]
    assert runs[0] == runs[2]
    assert runs[0].stdout != runs[1].stdout


def test_aslr_seed_moves_everything_and_repeats(compiled: Compiler) -> None:
    maps = [loadstone("run", "--aslr", seed, "/bin/cat", "/proc/self/maps").stdout for seed in ("1", "2", "1")]
    assert maps[0] == maps[2]
    assert maps[0] != maps[1]
    assert maps[0] != loadstone("run", "/bin/cat", "/proc/self/maps").stdout


def test_environment_order_does_not_depend_on_hashing(here: Path) -> None:
    env = {**ENVIRONMENT, **{f"V{n}": str(n) for n in range(20)}}
    runs = [
        loadstone("run", "--deterministic", "/usr/bin/env", env={**env, "PYTHONHASHSEED": "3"}, cwd=here).stdout
        for _ in "ab"
    ]
    assert runs[0] == runs[1]


def test_the_record_is_not_there_for_the_program(tmp_path: Path) -> None:
    """A record in a directory that the program lists would be part of what it records."""
    listed = tmp_path / "listed"
    listed.mkdir()
    program = ["/bin/ls", "-a", str(listed)]
    first, first_record = recorded(program, tmp_path, listed / "record")
    second, second_record = recorded(program, tmp_path, listed / "record")
    assert first.text == second.text == ".\n..\n"
    assert first_record == second_record


def test_a_program_does_not_replace_the_record(tmp_path: Path) -> None:
    script = "cd listed; echo x > mine; mv mine record; echo $?; echo y > record; ls"
    (tmp_path / "listed").mkdir()
    done, record = recorded(["/bin/bash", "-c", script], tmp_path, tmp_path / "listed" / "record", "--rw", "listed")
    assert done.text == "1\nmine\n", done.errors
    assert record.startswith(b'{"schema":')


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize("options", [(), ("--rw", ".")])
def test_what_is_made_is_newer_than_what_was_found(options: tuple[str, ...], here: Path) -> None:
    (here / "Makefile").write_text("note: in\n\t@echo made; cp in note\n")
    (here / "in").write_text("text")
    line = "make; make -q && echo up to date; sleep 0.1; touch in; make; make -q && echo up to date"
    got = loadstone("run", "--deterministic", *options, "/bin/sh", "-c", line, cwd=here)
    assert (got.text, got.guest_stderr) == ("made\nup to date\n" * 2, b"")
    assert (here / "in").stat().st_mtime <= time.time(), "the host is left with a file from the future"

"""Options end at PROGRAM; values are checked; errors are one sentence, a hint and status 125."""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pytest

from loadstone.cli import explain, machine_options, maps, run, timeline, values, verify, where
from loadstone.cli.main import COMMANDS, run_command
from loadstone.cli.parser import program_words
from loadstone.errors import HostError


def parse(*argv: str) -> tuple[Namespace, list[str]]:
    made = run.parser()
    options = made.parse_args(list(argv))
    return options, program_words(made, options.words)


@pytest.mark.parametrize(
    ("argv", "words", "stats"),
    [
        (["ls", "--help"], ["ls", "--help"], False),
        (["ls", "--stats"], ["ls", "--stats"], False),
        (["--stats", "ls", "--stats", "-o", "x"], ["ls", "--stats", "-o", "x"], True),
        (["--", "-x"], ["-x"], False),
        (["--stats", "--", "--stats"], ["--stats"], True),
        (["--stats", "--", "--", "a"], ["--", "a"], True),
        (["ls", "--", "-l"], ["ls", "--", "-l"], False),
        (["ls", "--engine=nonsense"], ["ls", "--engine=nonsense"], False),
        (["ls", "--stat"], ["ls", "--stat"], False),
        (["sh", "-c", "a b -c d"], ["sh", "-c", "a b -c d"], False),
        (["-"], ["-"], False),
        ([""], [""], False),
        (["--env", "A=-x", "--env=B=1=2", "ls", ""], ["ls", ""], False),
        (["--memory", "64M", "--timeout=2.5", "5"], ["5"], False),
        (["prog", "-1", "-h"], ["prog", "-1", "-h"], False),
    ],
)
def test_parsing_stops_at_program(argv: list[str], words: list[str], stats: bool) -> None:
    options, got = parse(*argv)
    assert got == words
    assert options.stats is stats


def test_option_values() -> None:
    options, _ = parse(
        "--engine",
        "unicorn",
        "--trace",
        "syscall,exec",
        "-o",
        "f",
        "--record",
        "r",
        "--memory",
        "64M",
        "--timeout",
        "2m",
        "--env",
        "A=1",
        "--env",
        "B=",
        "--clear-env",
        "--cwd",
        "/tmp",
        "--deterministic",
        "--seed",
        "0x10",
        "--aslr",
        "7",
        "--fault-around",
        "4K",
        "--page-cache",
        "cold",
        "--rw",
        "/tmp",
        "--rw",
        "/var",
        "--root",
        "/",
        "--bind",
        "/etc:/conf",
        "--untrusted",
        "x",
    )
    assert options.trace == ("exec", "syscall")
    assert (options.memory, options.timeout, options.seed, options.aslr) == (64 << 20, 120, 16, 7)
    assert machine_options.environment(options) == {"A": "1", "B": ""}
    arguments = machine_options.machine_arguments(options, "/bin/true")
    assert arguments["fault_around"] == 4096
    assert arguments["page_cache"] == "cold"
    assert arguments["rw"] == ["/tmp", "/var"]
    assert arguments["binds"] == [("/etc", "/conf")]
    assert arguments["deterministic"] is True
    assert "/bin/true" in arguments["visible"]


@pytest.mark.parametrize(
    ("text", "size"), [("0", 0), ("4096", 4096), ("64K", 65536), ("64k", 65536), ("1GiB", 1 << 30), ("2MB", 2 << 20)]
)
def test_sizes(text: str, size: int) -> None:
    assert values.size(text) == size


@pytest.mark.parametrize(
    ("text", "nanoseconds"), [("0s", 0), ("7ns", 7), ("1.5us", 1500), ("430ms", 430_000_000), ("1e3s", 10**12)]
)
def test_moments(text: str, nanoseconds: int) -> None:
    assert values.moment(text) == nanoseconds


@pytest.mark.parametrize("text", ["", "K", "1.5M", "-1", "4Q", "0x10", "\u0661", "1 G B"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        values.size(text)


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ([], "COMMAND"),
        (["frob"], "no command 'frob'"),
        (["rum"], "loadstone run"),
        (["run"], "which program?"),
        (["run", "--"], "which program?"),
        (["run", "-x"], "-x"),
        (["run", "--frob", "ls"], "--frob"),
        (["run", "--stat", "ls"], "--stat"),
        (["run", "--engine", "qemu", "ls"], "qemu"),
        (["run", "--trace", "nothing", "ls"], "'nothing'"),
        (["run", "--trace", "", "ls"], "what to trace"),
        (["run", "--memory", "12Q", "ls"], "'12Q'"),
        (["run", "--memory", "1K", "ls"], "range"),
        (["run", "--timeout", "0", "ls"], "seconds"),
        (["run", "--timeout", "nan", "ls"], "seconds"),
        (["run", "--fault-around", "5000", "ls"], "power of two"),
        (["run", "--env", "A", "ls"], "NAME=VALUE"),
        (["run", "--env", "=A", "ls"], "NAME=VALUE"),
        (["run", "--seed", "-1", "ls"], "--seed"),
        (["run", "--bind", "a:b", "ls"], "SRC:DST"),
        (["run", "--rw", "/no/such/place", "/bin/true"], "/no/such/place"),
        (["run", "--root", "/no/such/place", "/bin/true"], "/no/such/place"),
        (["run", "-o", "x", "ls"], "--trace"),
        (["run", "--policy", "fair", "--schedule-seed", "1", "ls"], "--policy and --schedule-seed"),
        (["run", "--rw", "", "ls"], "--rw: the path is empty"),
        (["run", "--record", "", "ls"], "--record: the path is empty"),
        (["run", "--trace", "exec", "-o", "/no/such/dir/file", "/bin/true"], "/no/such/dir/file"),
        (["run", "--record", "/no/such/dir/file", "/bin/true"], "/no/such/dir/file"),
    ],
)
def test_a_wrong_command_line_is_one_sentence_and_125(
    argv: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(argv) == 125
    err = capsys.readouterr().err
    assert said in err
    assert "Traceback" not in err
    if argv:
        assert len(err.splitlines()) <= 2
        assert all(line.startswith("loadstone: ") for line in err.splitlines())


@pytest.mark.parametrize("command", [command.name for command in COMMANDS])
def test_help_of_every_command_has_examples(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command([command, "--help"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: loadstone {command} ")
    assert f"loadstone {command}" in text.partition("Examples:")[2]
    assert max(map(len, text.splitlines())) <= 100


@pytest.mark.parametrize("words", [[], *([command.name] for command in COMMANDS)], ids=" ".join)
def test_help_is_read_on_80_columns(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command([*words, "--help"]) == 0
    assert [line for line in capsys.readouterr().out.splitlines() if len(line) > 80] == []


# What each kind of value says of itself when it is wrong.
WRONG = ["", "0", "-1", "abc", "9" * 23, "1.5", "\u0661"]
PARSERS = {"run": run.parser, "explain": explain.parser, "where": where.parser, "maps": maps.parser,
           "verify": verify.parser, "timeline": timeline.parser}  # fmt: skip
TYPED = [
    (command, action.option_strings[0], text)
    for command, made in PARSERS.items()
    for action in made()._actions
    if action.option_strings and (action.type is not None or action.choices is not None)
    for text in WRONG
]


@pytest.mark.parametrize("command", PARSERS)
def test_every_option_with_a_value_checks_it(command: str) -> None:
    untyped = [
        action.option_strings[0]
        for action in PARSERS[command]()._actions
        if action.option_strings and action.nargs is None and action.type is None and action.choices is None
    ]
    assert set(untyped) <= {"--binfmt"}  # the kernel's own rules, checked when it is registered


@pytest.mark.parametrize(("command", "option", "text"), TYPED)
def test_a_wrong_value_names_the_option_and_what_is_allowed(command: str, option: str, text: str) -> None:
    try:
        PARSERS[command]().parse_args([option, text, *(["record"] if command == "timeline" else ["/bin/true"])])
    except HostError as error:
        problem, hint = error.args
        assert problem.startswith(f"{command}: {option}: ")
        assert repr(text) in problem or problem.endswith("the path is empty") or not text
        assert re.search(
            r"choose from|number|size|a time such as|from 1M to 64T|power of two|of the form|empty|what to trace",
            problem,
        ), problem
        assert hint == f"see loadstone {command} --help"


def test_overview_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["--help"]) == 0
    text = capsys.readouterr().out
    for command in COMMANDS:
        assert command.name in text
        assert command.summary in text
    assert run_command(["--version"]) == 0


def test_a_bug_is_one_line_that_says_where(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def broken(argv: list[str]) -> int:
        return values.size(None)  # type: ignore[arg-type]

    monkeypatch.setattr(run, "main", broken)
    monkeypatch.delenv("LOADSTONE_DEBUG", raising=False)
    assert run_command(["run", "ls"]) == 125
    err = capsys.readouterr().err
    assert "a bug in Loadstone: AttributeError" in err
    assert "cli/values.py:" in err
    assert "Traceback" not in err
    monkeypatch.setenv("LOADSTONE_DEBUG", "1")
    assert run_command(["run", "ls"]) == 125
    assert "Traceback" in capsys.readouterr().err


def test_host_errors_carry_their_hint(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def failing(argv: list[str]) -> int:
        raise HostError("it does not work", "do this\x1b[2J")

    monkeypatch.setattr(run, "main", failing)
    assert run_command(["run", "ls"]) == 125
    assert capsys.readouterr().err == "loadstone: it does not work\nloadstone: do this\\x1b[2J\n"


def test_command_line_imports_stay_lean(tmp_path: Path) -> None:
    """What parsing a `run` may import: neither rich nor shutil nor json. The machine's imports are pinned elsewhere."""
    code = (
        "import sys; from loadstone.cli import run; from loadstone.cli.parser import program_words\n"
        "made = run.parser(); options = made.parse_args(['--stats', 'ls', '-l']); program_words(made, options.words)\n"
        "from loadstone.cli import machine_options\n"
        "machine_options.machine_arguments(options, '/bin/true')\n"
        "machine_options.find(options, 'ls', {'PATH': '/bin'})\n"
        "print(*sorted(sys.modules))"
    )
    line = [sys.executable, "-c", code]
    done = subprocess.run(line, capture_output=True, text=True, check=True, cwd=tmp_path, env={**os.environ})
    heavy = {
        "rich",
        "shutil",
        "json",
        "dataclasses",
        "inspect",
        "pathlib",
        "logging",
        "subprocess",
        "elftools",
        "unicorn",
    }
    # What the interpreter itself imported before us (a .pth file may) does not count.
    bare = subprocess.run(
        [sys.executable, "-c", "import sys; print(*sys.modules)"], capture_output=True, text=True, check=True
    )
    assert not heavy.intersection(done.stdout.split()).difference(bare.stdout.split())

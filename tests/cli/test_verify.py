"""The verify command: what it prints, writes and returns."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.run import ENVIRONMENT

LOADSTONE = [sys.executable, "-m", "loadstone"]


def verify(*words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    line = [*LOADSTONE, "verify", *words]
    return subprocess.run(line, capture_output=True, text=True, check=False, env=dict(ENVIRONMENT), cwd=cwd)


def test_one_program() -> None:
    done = verify("/bin/true", "--an-option-of-the-program")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("/bin/true --an-option-of-the-program: ELF64 PIE, dynamic")
    for said in (
        "stopped before its first",
        "killed",
        "Mappings",
        "Auxiliary vector, in order",
        "AT_PHDR",
        "Registers",
    ):
        assert said in done.stdout
    assert "AT_RANDOM bytes" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("identical: ")


def test_a_name_is_searched_in_path() -> None:
    assert verify("true").returncode == 0
    absent = verify("there-is-no-such-program")
    assert (absent.returncode, absent.stdout) == (127, "")


def test_a_directory_as_table_and_json(tmp_path: Path) -> None:
    for name, text, mode in (("a", b"#!/bin/sh\n", 0o755), ("b", b"#!/nowhere\n", 0o755), ("c", b"#!/bin/sh\n", 0o644)):
        (tmp_path / name).write_bytes(text)
        (tmp_path / name).chmod(mode)
    report = tmp_path / "report.json"
    done = verify("--report", str(report), "--jobs", "2", str(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")
    assert "2 names of 2 files compared with Linux " in done.stdout
    assert "2 of 2 agree (100.00 %)" in done.stdout
    assert "Refused by both, for the same reason: ENOENT 1." in done.stdout
    data = json.loads(report.read_text())
    assert data["schema"] == "loadstone/verify/1"
    assert data["kernel"]["release"] == os.uname().release
    assert data["totals"] == {"identical": 1, "refused_alike": 1, "differs": 0, "left_out": 0}
    first, second = data["results"]
    assert (first["path"], first["outcome"], first["differences"]) == (str(tmp_path / "a"), "identical", [])
    assert first["mappings"] > 5 and first["bytes"] > 500 and "AT_RANDOM bytes" in first["must_differ"]
    assert second["why"].startswith("ENOENT")
    again = verify("--json", str(tmp_path))
    assert [row["outcome"] for row in json.loads(again.stdout)["results"]] == ["identical", "refused_alike"]


def test_hostile_arguments_and_stack_limits() -> None:
    done = verify("--hostile", "--stack-limit", "unlimited", "/bin/true")
    assert done.returncode == 0 and "24 of 24 agree" in done.stdout


def test_another_kernel_differs_and_says_why() -> None:
    done = verify("--kernel", "4.19", "/bin/true")
    assert done.returncode == 1
    for said in ("linux-4.19, beside live-", "vdso-layout.lds.S", "What differs", "[vvar]", "map_vdso"):
        assert said in done.stdout
    assert done.stdout.splitlines()[-1].startswith("differs: ")
    report = json.loads(verify("--json", "--kernel", "4.19", "/bin/true").stdout)
    (result,) = report["results"]
    assert report["profile"] == "linux-4.19" and result["outcome"] == "differs"
    assert {"what", "loadstone", "kernel", "function", "file", "rule"} == set(result["differences"][0])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "which program?"),
        (("--stack-limit", "much", "/bin/true"), "'much' is neither small nor unlimited nor a size"),
        (("--kernel", "1.0", "/bin/true"), "invalid choice"),
        (("--report", "/nowhere/at/all", "/bin/true"), "--report /nowhere/at/all"),
        (("--jobs", "0", "/bin/true"), "--jobs: '0' is not a number from 1 to 256"),
        (("--seed", "0", "/bin/true"), "--seed means something with --fuzz or --aslr only"),
        (("--run-natively", "/bin/true"), "--run-natively means something with --faults only"),
        (("--timeout", "3", "/bin/true"), "--timeout means something with --faults only"),
        (("--fuzz", "3", "--hostile"), "--hostile means nothing with --fuzz"),
        (("--conformance", "--seed", "1"), "--seed means nothing with --conformance"),
        (("--aslr", "3", "--jobs", "2"), "--jobs means nothing with --aslr"),
        (("--fuzz", "3", "--aslr", "2"), "--fuzz, --aslr: one at a time"),
        (("--fuzz", "0"), "--fuzz: '0' is not a number from 1"),
        (("--fuzz", "3", "/bin/true"), "/bin/true is one too many"),
    ],
)
def test_what_cannot_be_done(words: tuple[str, ...], said: str) -> None:
    done = verify(*words)
    assert done.returncode == 125 and said in done.stderr and "Traceback" not in done.stderr


def test_an_empty_directory(tmp_path: Path) -> None:
    done = verify(str(tmp_path))
    assert done.returncode == 125 and "no executable ELF file or script" in done.stderr


def test_what_a_mode_cannot_take_is_named(tmp_path: Path) -> None:
    one_too_many = verify("--conformance", "/bin/true")
    assert one_too_many.returncode == 125
    assert "--conformance makes its files itself" in one_too_many.stderr
    directory = verify("--faults", "--run-natively", str(tmp_path))
    assert directory.returncode == 125
    assert f"{tmp_path} is a directory" in directory.stderr
    assert "--commands" in directory.stderr

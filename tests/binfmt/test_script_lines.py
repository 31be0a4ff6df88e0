"""`#!` lines: what the plan says against what the kernel puts on the interpreter's stack."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from loadstone.binfmt.plan import ScriptPlan
from loadstone.binfmt.registry import MAX_DEPTH
from loadstone.verify.native import native_image
from loadstone.verify.native_exec import NativeFailure
from support import elfbuilder as eb
from support.elf_oracle import Planned


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A directory with a short name, an interpreter `i` in it, and a script `s` to be written."""
    with tempfile.TemporaryDirectory(prefix="l", dir="/tmp") as name:
        for interpreter in ("i", "j\xff"):
            path = Path(name, interpreter)
            path.write_bytes(eb.static())
            path.chmod(0o755)
        yield Path(name)


def kernel(script: Path) -> list[bytes] | str:
    """The argument vector that the kernel gives the interpreter, or how the exec failed."""
    try:
        return native_image(str(script), ["zero", "one", ""], cwd=str(script.parent)).argv()
    except NativeFailure as failure:
        return failure.name


def planned(script: Path) -> list[bytes] | str:
    """The same by the plan."""
    plan = Planned(str(script))
    if plan.script is None:
        return plan.verdict
    return argv_of(plan.script, os.fsencode(script))


def argv_of(plan: ScriptPlan, script: bytes) -> list[bytes]:
    argument = [] if plan.argument is None else [plan.argument]
    return [plan.interpreter, *argument, script, b"one", b""]


def check(place: Path, line: bytes) -> list[bytes] | str:
    script = place / "s"
    script.write_bytes(line.replace(b"@", os.fsencode(place) + b"/i"))
    script.chmod(0o755)
    answer = kernel(script)
    ours = planned(script)
    if answer in ("ENOENT", "EACCES", "ENOTDIR"):  # the interpreter's path is sound, but leads nowhere
        assert isinstance(ours, list), line
        assert not os.path.isfile(os.path.join(os.fsencode(place), ours[0])), line
    else:
        assert ours == answer, line
    return answer


LINES = [
    b"#!@\n", b"#!@", b"#! @\n", b"#!\t \t@\n", b"#!@ \n", b"#!@\t\n", b"#!@ ", b"#!@\t", b"#!@  \t", b"#!@ a\n",
    b"#!@ a", b"#!@ a ", b"#!@ a b  c \t\n", b"#!@\ta\tb\n", b"#!@ a\r\n", b"#!@\r\n", b"#!@ \xff\xfe\n", b"#!",
    b"#!\n", b"#! \n", b"#!\t", b"#! ", b"#!\x00", b"#!\x00\n", b"#!\x00@\n", b"#! \x00@\n", b"#!@\x00 a\n",
    b"#!@ a\x00b\n", b"#!@ \x00b\n", b"#!@\x00", b"#!@ a\x00", b"#!@ a \x00\n", b"#!@ a\x00 \n", b"#!@\n#!@ b\n",
    b"# !@\n", b" #!@\n", b"#", b"#!!@\n", b"#!#!@\n", b"#!nothing\n", b"#!i\n", b"#!./i x\n", b"#!/\n", b"#!.\n",
    b"#!@@\n", b"#!@ @\n", b"#!@ -x --y=z 'q r'\n", b"#!\x0b@\n", b"#!@\x0ba\n", b"#!@ \x0c\n",
]  # fmt: skip


@pytest.mark.parametrize("line", LINES, ids=repr)
def test_a_line(place: Path, line: bytes) -> None:
    check(place, line)


def test_the_interpreter_may_have_any_bytes(place: Path) -> None:
    name = os.fsencode(place / "j\xff")
    assert check(place, b"#!" + name + b" \xff\n")[:2] == [name, b"\xff"]


def test_a_blank_and_no_newline_is_an_empty_argument(place: Path) -> None:
    found = check(place, b"#!@ ")
    assert found[1] == b""
    assert len(check(place, b"#!@ \n")) == len(found) - 1


def test_lengths_around_the_buffer(place: Path) -> None:
    """Every length from 245 to 262 of: an argument, blanks before the path, a path, a path and blanks."""
    interpreter = os.fsencode(place / "i")
    answers = set()
    for length in range(245, 263):
        for end in (b"\n", b"", b"\0", b" \n", b"\n\n"):
            start = b"#!" + interpreter + b" "
            answers.add(str(check(place, start.ljust(length, b"x") + end)))
            answers.add(str(check(place, start.ljust(length - 3, b"x") + b" yz" + end)))
            answers.add(str(check(place, start.ljust(length, b" ") + end)))
            answers.add(str(check(place, b"#!".ljust(length - len(interpreter), b" ") + interpreter + end)))
            answers.add(str(check(place, b"#!".ljust(length - len(interpreter) - 2, b"/") + interpreter + b" a" + end)))
            answers.add(str(check(place, b"#!".ljust(length, b"\t") + end)))
    assert "ENOEXEC" in answers
    assert len(answers) > 20


def test_how_deep_interpreters_nest(place: Path) -> None:
    previous = place / "i"
    for depth in range(1, MAX_DEPTH + 3):
        script = place / f"d{depth}"
        script.write_bytes(b"#!" + os.fsencode(previous) + b"\n")
        script.chmod(0o755)
        found = kernel(script)
        if depth <= MAX_DEPTH:
            assert isinstance(found, list)
        else:
            assert found == "ELOOP"
        previous = script

"""Descriptors that a shell opens for the program above stderr: as natively they arrive, and end where they end."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

import pytest

from support.run import native, run_command

# LOADSTONE stands before what runs inside; natively there is nothing in its place.
LINES = [
    "LOADSTONE diff <(seq 3) <(seq 4)",
    "seq 20000 | LOADSTONE tee >(md5sum > m) >(wc -l > n) | tail -n 1; until [ -s m -a -s n ]; do :; done; cat m n",
    "seq 9 > f; { LOADSTONE sh -c 'read x <&3; echo $x'; read y <&3; echo $y; } 3< f",
    "LOADSTONE sh -c 'echo a >&4; echo b >&4' 4> f; cat f; LOADSTONE sh -c 'echo c > /dev/fd/5; cat f' 5>> f",
    "LOADSTONE bash -c 'for fd in 0 1 2 3 7 9 30; do [ -e /proc/self/fd/$fd ] && echo $fd; done' 7<&0 30> f",
    "exec 70< <(echo seventy); ulimit -n 64; LOADSTONE sh -c 'ulimit -n; cat /proc/self/fd/70'",
    "(flock 9; LOADSTONE flock -n 9 && echo held) 9> f",
    "LOADSTONE python3 -c 'import os; print(os.get_inheritable(5)); os.close(5); os.read(5, 1)' 5< <(echo)",
]


@pytest.mark.parametrize("line", LINES)
def test_as_natively(line: str, tmp_path: Path) -> None:
    results = []
    for side, command in (("native", []), ("inside", run_command("--rw", ".", "--"))):
        here = tmp_path / side
        here.mkdir()
        done = native("bash", "-c", line.replace("LOADSTONE", shlex.join(command)), cwd=here)
        results.append((done.text, done.errors, done.status))
    assert results[1] == results[0]


def test_the_reader_of_a_pipe_sees_the_end_when_the_guest_closes_it() -> None:
    reader, writer = os.pipe()
    line = run_command("--", "bash", "-c", f"echo x >&{writer}; exec {writer}>&-; read line; echo $line")
    with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=(writer,)) as process:
        os.close(writer)
        with open(reader, "rb") as pipe:
            assert pipe.read() == b"x\n"  # until its end: nobody has it open for writing
        assert process.communicate(b"goes on\n", timeout=100)[0] == b"goes on\n"


def test_none_for_a_program_that_is_not_trusted() -> None:
    inside = shlex.join(run_command("--untrusted", "/bin/cat", "/dev/fd/3"))
    done = native("bash", "-c", f"{inside} 3< /etc/passwd")
    assert done.text == "" and "No such file or directory" in done.errors


def test_options_that_begin_in_a_directory_that_was_removed(tmp_path: Path) -> None:
    inside = shlex.join(run_command("--rw", ".", "true"))
    done = native("sh", "-c", f"rmdir '{tmp_path}'; {inside}", cwd=tmp_path)
    assert done.status == 125
    assert done.errors == "loadstone: --rw .: the working directory has been removed\n"

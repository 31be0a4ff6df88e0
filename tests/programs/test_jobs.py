"""Job control: an interactive shell on a pseudo-terminal, natively and inside Loadstone, typed at in the same way."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.run import ENVIRONMENT, run_command

SHELL = ("/bin/bash", "--norc", "--noprofile", "-i")
PROMPT = "PROMPT "
PATIENCE = 100.0
# Says when it is the foreground job, and becomes the program that it is given.
HERE = '#!/bin/sh\necho here >&2\nexec "$@"\n'


class Terminal:
    """A program on a terminal of its own, in a session of its own."""

    def __init__(self, line: list[str], directory: Path) -> None:
        (directory / "here").write_text(HERE)
        (directory / "here").chmod(0o755)
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            own = {"PATH": f"{directory}:{ENVIRONMENT['PATH']}", "PS1": PROMPT, "TERM": "dumb", "HISTFILE": "/dev/null"}
            os.execve(line[0], line, {**ENVIRONMENT, **own})
        self._seen = ""

    def type(self, text: str) -> None:
        os.write(self._fd, text.encode())

    def until(self, text: str) -> str:
        """What is printed up to and including `text`."""
        end = time.monotonic() + PATIENCE
        while text not in self._seen:
            ready = select.select([self._fd], [], [], max(0.0, end - time.monotonic()))[0]
            assert ready, f"waited for {text!r}, saw {self._seen!r}"
            try:
                new = os.read(self._fd, 65536)
            except OSError:
                new = b""
            assert new, f"ended before {text!r}: {self._seen!r}"
            self._seen += new.decode("utf-8", "replace")
        shown, _, self._seen = self._seen.partition(text)
        return shown + text

    def status(self) -> int:
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def close(self) -> None:
        os.close(self._fd)
        try:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        except (ProcessLookupError, ChildProcessError):
            return


@pytest.fixture(params=["native", "loadstone"])
def shell(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Terminal]:
    line = list(SHELL) if request.param == "native" else [*run_command(), *SHELL]
    terminal = Terminal(line, tmp_path)
    terminal.until(PROMPT)
    yield terminal
    terminal.close()


def run(shell: Terminal, command: str) -> str:
    """What a command prints, without its echo and the next prompt; job numbers, no process numbers."""
    shell.type(command + "\n")
    shell.until(command + "\r\n")
    return re.sub(r"\] \d+", "] PID", shell.until(PROMPT).removesuffix(PROMPT)).replace("\r\n", "\n")


def test_stop_list_continue_and_end_a_job(shell: Terminal) -> None:
    shell.type("here sleep 100\n")
    shell.until("here sleep 100\r\nhere\r\n")
    shell.type("\x1a")
    assert "[1]+  Stopped                 here sleep 100" in shell.until(PROMPT)
    assert run(shell, "echo $?") == "148\n"
    assert run(shell, "jobs") == "[1]+  Stopped                 here sleep 100\n"
    assert run(shell, "bg") == "[1]+ here sleep 100 &\n"
    assert run(shell, "jobs") == "[1]+  Running                 here sleep 100 &\n"
    assert "143\n" in run(shell, "kill %1; wait %1; echo $?")
    assert run(shell, "jobs") == ""


def test_the_keyboard_reaches_the_foreground_job_only(shell: Terminal) -> None:
    assert run(shell, "sleep 200 &") == "[1] PID\n"
    shell.type("here cat\n")
    shell.until("here cat\r\nhere\r\n")
    shell.type("typed\n")
    shell.until("typed\r\ntyped\r\n")
    shell.type("\x03")
    shell.until(PROMPT)
    assert run(shell, "echo $?") == "130\n"
    assert run(shell, "jobs") == "[1]+  Running                 sleep 200 &\n"
    run(shell, "kill -9 %1; wait")


def test_a_background_job_that_reads_is_stopped_until_it_is_brought_back(shell: Terminal) -> None:
    said, end = run(shell, "cat &"), time.monotonic() + PATIENCE
    while "[1]+  Stopped                 cat" not in said:
        assert time.monotonic() < end, said
        said += run(shell, "jobs")
    shell.type("fg\n")
    shell.until("fg\r\ncat\r\n")
    shell.type("again\n")
    shell.until("again\r\nagain\r\n")
    shell.type("\x04")
    shell.until(PROMPT)
    assert run(shell, "echo $?") == "0\n"


def test_a_pipeline_is_one_job(shell: Terminal) -> None:
    shell.type("here cat | here tr a-z A-Z\n")
    shell.until("A-Z\r\nhere\r\nhere\r\n")
    shell.type("\x1a")
    assert "Stopped                 here cat | here tr a-z A-Z" in shell.until(PROMPT)
    shell.type("fg\n")
    shell.until("fg\r\nhere cat | here tr a-z A-Z\r\n")
    shell.type("shout\n\x04")
    shell.until("SHOUT\r\n")
    shell.until(PROMPT)


def test_the_shell_ends_with_the_last_status(shell: Terminal) -> None:
    run(shell, "(exit 7)")
    shell.type("exit\n")
    shell.until("exit\r\n")
    assert shell.status() == 7


def test_loadstone_is_a_job_of_the_users_shell(tmp_path: Path) -> None:
    """Ctrl-Z stops the guest's program, and Loadstone with it; fg continues both."""
    terminal = Terminal(list(SHELL), tmp_path)
    try:
        terminal.until(PROMPT)
        command = " ".join([*run_command(), "here", "/bin/cat"])
        terminal.type(command + "\n")
        terminal.until("/bin/cat\r\nhere\r\n")
        terminal.type("first\n")
        terminal.until("first\r\nfirst\r\n")
        terminal.type("\x1a")
        assert "Stopped" in terminal.until(PROMPT)
        terminal.type("fg\n")
        terminal.until("/bin/cat\r\n")
        terminal.type("second\n")
        terminal.until("second\r\nsecond\r\n")
        terminal.type("\x04")
        terminal.until(PROMPT)
        assert run(terminal, "echo $?") == "0\n"
    finally:
        terminal.close()

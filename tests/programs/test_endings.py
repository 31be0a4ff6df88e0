"""Every way a run can end: Ctrl-C, time-outs, closed and full pipes, signals from outside."""

from __future__ import annotations

import os
import pty
import re
import select
import shlex
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from support.compilers import Compiler
from support.endings import PATIENCE, end_by_three
from support.run import ENVIRONMENT, loadstone, native, run_command, same, shell_status


class Terminal:
    """A program on a terminal of its own, as its session leader's foreground job."""

    def __init__(self, *options: str) -> None:
        line = run_command(*options)
        self.pid, self.master = pty.fork()
        if self.pid == 0:
            os.execve(line[0], line, dict(ENVIRONMENT))
        self.output = b""

    def wait_for(self, text: bytes) -> None:
        """Read until `text` was printed."""
        deadline = time.monotonic() + PATIENCE
        while text not in self.output:
            assert time.monotonic() < deadline, f"{text!r} never came: {self.output!r}"
            if select.select([self.master], [], [], 0.2)[0]:
                self.output += os.read(self.master, 4096)

    def type(self, text: bytes) -> None:
        """Type `text` at the terminal."""
        os.write(self.master, text)

    def status(self) -> int:
        """Wait for the end; the exit status as a shell shows it."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.pid = 0
                self._read_the_rest()
                return shell_status(os.waitstatus_to_exitcode(status))
            if select.select([self.master], [], [], 0.02)[0]:
                with suppress(OSError):  # EIO: the program has closed its side
                    self.output += os.read(self.master, 4096)
        raise AssertionError(f"still running: {self.output!r}")

    def has_ended(self) -> bool:
        """Whether there is a status to be had."""
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def _read_the_rest(self) -> None:
        """What the program printed last may come after its end."""
        with suppress(OSError):  # EIO: nobody has the other side any more
            while select.select([self.master], [], [], 0.2)[0]:
                part = os.read(self.master, 4096)
                if not part:
                    break
                self.output += part

    def close(self) -> None:
        """End what is left."""
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self.master)


@contextmanager
def terminal(*options: str) -> Iterator[Terminal]:
    made = Terminal(*options)
    try:
        yield made
    finally:
        made.close()


def test_control_c_ends_a_program_that_computes(compiled: Compiler) -> None:
    with terminal(compiled("catch", "static")) as ours:
        ours.wait_for(b"ready")
        ours.type(b"\x03")
        assert ours.status() == 3
        assert b"caught 2" in ours.output


def test_control_c_reaches_a_handler_in_a_loop_without_system_calls(compiled: Compiler) -> None:
    with terminal(compiled("catch", "static"), "spin") as ours:
        ours.wait_for(b"ready")
        ours.type(b"\x03")
        assert ours.status() == 3
        assert b"caught 2" in ours.output


def test_control_c_kills_a_program_without_a_handler(compiled: Compiler) -> None:
    with terminal("/bin/bash", "-c", "echo ready; while :; do :; done") as ours:
        ours.wait_for(b"ready")
        ours.type(b"\x03")
        assert ours.status() == 130
        assert b"Traceback" not in ours.output


def test_control_c_while_waiting_for_input() -> None:
    with terminal("/bin/cat") as ours:
        ours.type(b"a line\n")
        ours.wait_for(b"a line\r\na line")
        ours.type(b"\x03")
        assert ours.status() == 130


def test_the_third_control_c_ends_the_machine(compiled: Compiler) -> None:
    """A program that ignores SIGINT must not hold the terminal for ever."""
    with terminal("/bin/bash", "-c", "trap '' INT; echo ready; while :; do :; done") as ours:
        ours.wait_for(b"ready")
        end_by_three(lambda: ours.type(b"\x03"), ours.has_ended)
        assert ours.status() == 130


def test_a_slow_third_control_c_does_not() -> None:
    """Only three within two seconds do; else the program gets each of them."""
    script = "trap 'n=$((n + 1)); echo got $n; [ $n = 3 ] && exit 7' INT; echo ready; while :; do :; done"
    with terminal("/bin/bash", "-c", script) as ours:
        ours.wait_for(b"ready")
        for count in (b"1", b"2"):
            ours.type(b"\x03")
            ours.wait_for(b"got " + count)
            time.sleep(1.2)
        ours.type(b"\x03")
        assert ours.status() == 7
        assert b"got 3" in ours.output


def test_end_of_input_at_a_terminal() -> None:
    with terminal("/usr/bin/wc", "-l") as ours:
        ours.type(b"one\ntwo\n")
        time.sleep(0.5)
        ours.type(b"\x04")
        assert ours.status() == 0
        assert b"2" in ours.output.splitlines()[-1]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_terminal_modes_are_restored(number: signal.Signals) -> None:
    """The guest turns echo off and is ended from outside: the host's terminal must be as it was."""
    script = "import sys, termios; a = termios.tcgetattr(0); a[3] &= ~(termios.ECHO | termios.ICANON);\n"
    script += "termios.tcsetattr(0, termios.TCSANOW, a); print('ready', flush=True); sys.stdin.read()"
    with terminal("/usr/bin/python3", "-c", script) as ours:
        ours.wait_for(b"ready")
        assert not termios.tcgetattr(ours.master)[3] & termios.ECHO
        os.kill(ours.pid, number)
        assert ours.status() == 128 + number
        before = termios.tcgetattr(ours.master)
        assert before[3] & termios.ECHO
        assert before[3] & termios.ICANON


def test_sigint_from_outside_without_a_terminal(compiled: Compiler) -> None:
    process = subprocess.Popen(
        run_command(compiled("catch", "static"), "spin"), stdout=subprocess.PIPE, env=dict(ENVIRONMENT)
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGINT)
    assert process.stdout.read() == b"caught 2\n"
    assert process.wait(PATIENCE) == 3


@contextmanager
def started(script: str) -> Iterator[subprocess.Popen[bytes]]:
    """A shell inside Loadstone, without a terminal, that has said `ready`."""
    line = run_command("/bin/sh", "-c", script)
    with subprocess.Popen(line, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, env=dict(ENVIRONMENT)) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        try:
            yield process
        finally:
            process.kill()


def test_sigterm_and_sighup_are_for_the_program() -> None:
    script = "trap 'echo hup' HUP; trap 'echo term; exit 5' TERM; echo ready; while :; do read line < /dev/null; done"
    with started(script) as process:
        assert process.stdout is not None
        process.send_signal(signal.SIGHUP)
        assert process.stdout.readline() == b"hup\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.read() == b"term\n"
        assert process.wait(PATIENCE) == 5


def test_the_third_sigterm_ends_the_machine() -> None:
    with started("trap '' TERM; echo ready; while :; do :; done") as process:
        end_by_three(lambda: process.send_signal(signal.SIGTERM), lambda: process.poll() is not None)
        assert process.wait(PATIENCE) == 143


def test_sigterm_is_for_one_process() -> None:
    """As natively: the others learn of it from the one that got it."""
    with started("sleep 99 & trap 'kill $!; wait; exit 7' TERM; echo ready; wait") as process:
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 7


def test_signals_that_are_ignored_outside_are_ignored_inside() -> None:
    ignoring = "trap '' INT HUP USR1; exec "
    lines = ["grep SigIgn /proc/self/status", shlex.join(run_command("grep", "SigIgn", "/proc/self/status"))]
    # What posix_spawn starts ignores 32 and 33, the C library's own, as well.
    spawn = "import os, sys; os.waitpid(os.posix_spawn('/bin/sh', ['sh', '-c', sys.argv[1]], os.environ), 0)"
    wanted, got = (
        int(native(sys.executable, "-c", spawn, ignoring + line, env=os.environ).text.split()[1], 16) for line in lines
    )
    assert got == wanted & ~(1 << 12 | 1 << 24)  # SIGPIPE and SIGXFSZ: Python ignores them itself
    assert wanted & (0x203 | 3 << 31) == 0x203 | 3 << 31


def test_a_program_may_handle_what_was_ignored_when_it_was_started() -> None:
    handle = """
import signal, sys

def handler(*_):
    print("handled")
    sys.exit(5)

signal.signal(signal.SIGINT, handler)
print("ready", flush=True)
while True:
    signal.pause()
"""
    program = ["/usr/bin/python3", "-S", "-E", "-c", handle]
    for line in (program, run_command(*program)):
        ignoring = ["/bin/sh", "-c", 'trap "" INT; exec "$@"', "sh", *line]
        with subprocess.Popen(ignoring, stdout=subprocess.PIPE, env=dict(ENVIRONMENT)) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            process.send_signal(signal.SIGINT)
            assert process.communicate(timeout=PATIENCE)[0] == b"handled\n"
            assert process.returncode == 5


def test_timeout_ends_a_loop_without_system_calls(compiled: Compiler) -> None:
    start = time.monotonic()
    got = loadstone("run", "--timeout", "1", compiled("spin", "static"), timeout=PATIENCE)
    assert got.status == 124
    assert 0.9 < time.monotonic() - start < PATIENCE
    assert "timeout" in got.errors
    assert "Traceback" not in got.errors


def test_timeout_ends_a_program_that_waits() -> None:
    got = loadstone("run", "--timeout", "0.5", "/bin/sleep", "1000", timeout=PATIENCE)
    assert got.status == 124


def test_timeout_leaves_a_short_program_alone() -> None:
    assert loadstone("run", "--timeout", "60", "/bin/echo", "done").status == 0


def pipeline(producer: list[str], consumer: str) -> tuple[bytes, int, bytes]:
    """`producer | consumer` in a shell: what came out, and the producer's status and stderr."""
    quoted = " ".join("'" + word.replace("'", "'\\''") + "'" for word in producer)
    script = f'{{ {quoted}; echo "status $?" >&2; }} | {consumer}'
    done = subprocess.run(
        ["/bin/bash", "-c", script], capture_output=True, env=dict(ENVIRONMENT), timeout=240, check=False
    )
    *errors, last = done.stderr.splitlines()
    return done.stdout, int(last.split()[-1]), b"\n".join(errors)


@pytest.mark.parametrize(
    "program",
    [["/usr/bin/seq", "1", "10000000"], ["/usr/bin/yes"], ["/bin/bash", "-c", "while :; do echo y; done"]],
    ids=["seq", "yes", "bash"],
)
def test_closed_pipe_ends_the_producer_as_natively(program: list[str]) -> None:
    wanted = pipeline(program, "head -n 1")
    got = pipeline(run_command(*program), "head -n 1")
    assert got[:2] == wanted[:2] and wanted[1] == 141
    assert b"Traceback" not in got[2]


def test_closed_pipe_when_sigpipe_is_ignored() -> None:
    """Then the write fails with EPIPE, and the program says so."""
    script = "import signal, os, sys\nsignal.signal(signal.SIGPIPE, signal.SIG_IGN)\n"
    script += "try:\n    while True: os.write(1, b'x')\nexcept BrokenPipeError:\n    sys.exit(7)"
    program = ["/usr/bin/python3", "-c", script]
    assert pipeline(program, "true")[1] == 7
    assert pipeline(run_command(*program), "true")[1] == 7


def test_full_pipe_waits_for_its_reader() -> None:
    """64 KiB fit; the rest must come when the reader does, all of it, in order."""
    out, status, errors = pipeline(run_command("/usr/bin/seq", "1", "300000"), "{ sleep 1; cat; }")
    assert status == 0, errors
    assert out == b"".join(b"%d\n" % n for n in range(1, 300_001))


def test_slow_writer_on_stdin() -> None:
    process = subprocess.Popen(
        run_command("/bin/cat"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=dict(ENVIRONMENT)
    )
    assert process.stdin is not None and process.stdout is not None
    for word in (b"one\n", b"two\n", b"three\n"):
        process.stdin.write(word)
        process.stdin.flush()
        assert process.stdout.readline() == word  # not held back until the end
    process.stdin.close()
    assert process.stdout.read() == b""
    assert process.wait(PATIENCE) == 0


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("program", ["/bin/cat", "/bin/echo hello", "/bin/ls /nonexistent", "/usr/bin/tty"])
def test_closed_standard_descriptors(closed: str, program: str) -> None:
    """A descriptor that the shell closed is closed in the guest, and no file of ours takes its number."""

    def run(words: str) -> tuple[int, bytes, bytes]:
        done = subprocess.run(
            ["/bin/bash", "-c", f"exec </dev/null; {words} {closed}"],
            capture_output=True,
            env=dict(ENVIRONMENT),
            check=False,
        )
        return done.returncode, done.stdout, done.stderr

    wanted = run(program)
    status, out, errors = run(" ".join(f"'{word}'" for word in run_command(*program.split())))
    assert (status, out) == wanted[:2], errors
    assert b"Traceback" not in errors


def test_redirections_keep_their_offsets(here: Path) -> None:
    """Appending, and two programs writing to one open file: the offset belongs to the open file description."""
    words = " ".join(run_command("/bin/echo", "guest"))
    subprocess.run(
        ["/bin/bash", "-c", f"{{ echo host; {words}; echo host again; }} > out; {words} >> out"],
        cwd=here, env=dict(ENVIRONMENT), check=True,
    )  # fmt: skip
    assert (here / "out").read_text() == "host\nguest\nhost again\nguest\n"
    (here / "in").write_text("first\nsecond\nthird\n")
    words = " ".join(f"'{word}'" for word in run_command("/bin/bash", "-c", "read x; echo guest $x"))
    done = subprocess.run(
        ["/bin/bash", "-c", f"{{ read x; {words}; read y; echo $x $y; }} < in"],
        cwd=here, env=dict(ENVIRONMENT), capture_output=True, check=False,
    )  # fmt: skip
    assert done.stdout == b"guest second\nfirst third\n"


@pytest.mark.parametrize("status", [0, 1, 2, 42, 125, 127, 255])
def test_exit_status_is_the_programs(status: int) -> None:
    assert loadstone("run", "/bin/bash", "-c", f"exit {status}").status == status


@pytest.mark.parametrize("name", ["TERM", "KILL", "HUP", "USR1", "ALRM", "XCPU", "34"])
def test_status_of_a_killed_program(name: str) -> None:
    same("/bin/bash", "-c", f"kill -{name} $$; echo survived")


def test_command_not_found() -> None:
    got = loadstone("run", "no-such-program-anywhere")
    assert got.status == native("/bin/sh", "-c", "no-such-program-anywhere").status == 127
    assert "no-such-program-anywhere" in got.errors


@pytest.mark.parametrize(
    "options", [["--no-such-option"], ["--memory", "x"], ["--timeout", "-1"], [], ["--engine", "z80"]]
)
def test_wrong_options_are_our_own_failure(options: list[str]) -> None:
    got = loadstone("run", *options, *(["/bin/true"] if options else []))
    assert got.status == 125
    assert got.stdout == b""
    assert "Traceback" not in got.errors
    assert len(got.errors.splitlines()) <= 3


def test_out_of_memory_is_a_kill_that_says_so() -> None:
    """Each piece is small enough to be promised; together they are more than the machine has."""
    script = "x = [bytearray(10**6) for _ in range(200)]; print('not reached')"
    got = loadstone("run", "--memory", "64M", "/usr/bin/python3", "-c", script)
    assert (got.status, got.stdout) == (137, b"")
    assert "out of memory" in got.errors.lower()
    assert "Traceback" not in got.errors


def test_a_child_killed_for_memory_is_named() -> None:
    child = "x = [bytearray(10**6) for _ in range(200)]"
    got = loadstone("run", "--memory", "64M", "/bin/sh", "-c", f"/usr/bin/python3 -c '{child}'; echo $?")
    assert got.stdout == b"137\n"
    assert re.search(r"^loadstone: out of memory: .*python3.* is killed$", got.errors, re.MULTILINE), got.errors

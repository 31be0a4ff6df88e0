"""Run a program inside Loadstone and natively, and compare what a user would see.

The environment is fixed, so that both sides print the same on every machine: no locale, UTC, a plain PATH and HOME.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

ENVIRONMENT: Mapping[str, str] = {
    "HOME": "/nonexistent",
    "LC_ALL": "C",
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "TZ": "UTC",
}
# How long a program may take inside Loadstone. Generous: continuous integration has two slow cores.
TIMEOUT = 240.0
ENGINE_VARIABLE = "LOADSTONE_TEST_ENGINE"  # unicorn or kvm; unset: whatever `--engine auto` chooses
_ADDR_NO_RANDOMIZE = 0x0040000

# Runs of the guest in this process since the last test ended, by engine; conftest collects and clears it.
runs_by_engine: Counter[str] = Counter()


@dataclass(frozen=True)
class Completed:
    """A program that ended: its bytes and its status as a shell shows it (128+N for a signal)."""

    stdout: bytes
    stderr: bytes
    status: int

    @property
    def text(self) -> str:
        """Standard output as text."""
        return self.stdout.decode("utf-8", "surrogateescape")

    @property
    def errors(self) -> str:
        """Standard error as text, our own lines included."""
        return self.stderr.decode("utf-8", "surrogateescape")

    @property
    def guest_stderr(self) -> bytes:
        """Standard error without the lines that Loadstone itself adds after the program's own."""
        return b"".join(line for line in self.stderr.splitlines(True) if not line.startswith(b"loadstone: "))


def engine() -> str:
    """The engine asked for with LOADSTONE_TEST_ENGINE; `auto` when nobody asked."""
    return os.environ.get(ENGINE_VARIABLE, "auto")


def of_unicorn() -> tuple[str, ...]:
    """Options for a test of what the Unicorn core does otherwise than a CPU: that core, unless KVM is under test."""
    return () if engine() == "kvm" else ("--engine", "unicorn")


def command(*args: str) -> list[str]:
    """The command line `loadstone ARGS…` of this checkout."""
    return [sys.executable, "-m", "loadstone", *args]


def run_command(*options: str) -> list[str]:
    """The command line `loadstone run OPTIONS…` with the engine under test; what is deterministic has its own."""
    used = "unicorn" if "--deterministic" in options and engine() == "kvm" else engine()
    chosen = [] if used == "auto" else ["--engine", used]
    runs_by_engine[used] += 1
    return command("run", *chosen, *options)


def loadstone(
    *args: str,
    stdin: bytes | int | None = None,
    env: Mapping[str, str] | None = None,
    cwd: str | os.PathLike[str] | None = None,
    timeout: float = TIMEOUT,
) -> Completed:
    """Run `loadstone ARGS…`. `stdin`: bytes to feed, a descriptor, or None for an empty one.

    A `run` as first argument gets the engine under test. Raises subprocess.TimeoutExpired after `timeout` seconds.
    """
    line = run_command(*args[1:]) if args[:1] == ("run",) else command(*args)
    return _finish(line, stdin, env, cwd, timeout)


def native(
    *args: str,
    stdin: bytes | int | None = None,
    env: Mapping[str, str] | None = None,
    cwd: str | os.PathLike[str] | None = None,
    timeout: float = TIMEOUT,
    fixed_addresses: bool = False,
) -> Completed:
    """Run a program on the host's own kernel; with `fixed_addresses`, without address space randomisation."""
    prepare = _fix_addresses if fixed_addresses else None
    return _finish(list(args), stdin, env, cwd, timeout, prepare)


def same(
    program: str,
    *args: str,
    stdin: bytes | None = None,
    env: Mapping[str, str] | None = None,
    cwd: str | os.PathLike[str] | None = None,
    timeout: float = TIMEOUT,
    options: Sequence[str] = (),
    fixed_addresses: bool = False,
) -> Completed:
    """Run `program` on both sides, assert the same stdout, stderr and status, and return what Loadstone gave."""
    wanted = native(program, *args, stdin=stdin, env=env, cwd=cwd, timeout=timeout, fixed_addresses=fixed_addresses)
    got = loadstone("run", *options, "--", program, *args, stdin=stdin, env=env, cwd=cwd, timeout=timeout)
    assert_same(got, wanted)
    return got


def assert_same(got: Completed, wanted: Completed) -> None:
    """Assert that Loadstone and the host gave the same status, stdout and stderr."""
    assert got.status == wanted.status, f"status {got.status}, natively {wanted.status}; stderr: {got.errors[-2000:]}"
    assert got.stdout == wanted.stdout, _first_difference("stdout", got.stdout, wanted.stdout)
    assert got.guest_stderr == wanted.stderr, _first_difference("stderr", got.guest_stderr, wanted.stderr)


def shell_status(returncode: int) -> int:
    """A `subprocess` return code as a shell shows it: -N for a signal becomes 128+N."""
    return 128 - returncode if returncode < 0 else returncode


def _finish(
    line: list[str],
    stdin: bytes | int | None,
    env: Mapping[str, str] | None,
    cwd: str | os.PathLike[str] | None,
    timeout: float,
    prepare: Callable[[], None] | None = None,
) -> Completed:
    feed = stdin if isinstance(stdin, bytes) else None
    source = stdin if isinstance(stdin, int) else subprocess.DEVNULL if stdin is None else subprocess.PIPE
    with subprocess.Popen(
        line,
        stdin=source,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=dict(ENVIRONMENT if env is None else env),
        cwd=cwd,
        preexec_fn=prepare,
    ) as process:
        try:
            stdout, stderr = process.communicate(feed, timeout)
        except BaseException:
            process.kill()
            raise
    return Completed(stdout, stderr, shell_status(process.returncode))


def _fix_addresses() -> None:
    ctypes.CDLL(None).personality(_ADDR_NO_RANDOMIZE)


def _first_difference(what: str, got: bytes, wanted: bytes) -> str:
    ours, theirs = got.splitlines(), wanted.splitlines()
    for number, (line, expected) in enumerate(zip(ours, theirs, strict=False), 1):
        if line != expected:
            return f"{what} differs in line {number}:\n  loadstone: {line!r}\n  native:    {expected!r}"
    common = min(len(ours), len(theirs))
    extra = (ours[common:] or theirs[common:])[:1]
    return f"{what}: {len(ours)} lines, natively {len(theirs)}; the first that only one has: {extra}"

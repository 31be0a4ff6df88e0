"""The kernel's side of a comparison: its verdict on one execve, and the facts of its image.

Imports little: `NativeServer` runs this module in an interpreter of its own, because what a fork costs is copying the
page tables of whoever forks.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
from collections.abc import Sequence
from typing import NamedTuple

from loadstone.errors import HostError
from loadstone.linux.exec.auxv import AT_SYSINFO, decode, name
from loadstone.verify.native import NativeProcess, native_process
from loadstone.verify.native_exec import NativeFailure

IMAGE = "image"


class Span(NamedTuple):
    """Memory that is compared: `length` bytes at `address`, but for `masked` (start, length) inside."""

    what: str
    address: int
    length: int
    masked: tuple[int, int] = (0, 0)


class Request(NamedTuple):
    """One execve, and the memory that is looked at if it succeeds."""

    path: str
    argv: tuple[bytes, ...]
    envp: tuple[bytes, ...]
    cwd: str
    stack_limit: int | None
    uid: int | None
    spans: tuple[Span, ...] = ()
    randomize: bool = False


Answer = tuple[str, dict[str, str]]  # an errno's name, `signal N`, or IMAGE; the image's facts


def ask_kernel(request: Request) -> Answer:
    """What the kernel makes of it. Raises HostError where it cannot be asked.

    An image has no facts where the kernel shows none: to a user who may execute the file but not read it.
    """
    try:
        with native_process(
            request.path,
            request.argv,
            request.envp,
            cwd=request.cwd,
            stack_limit=request.stack_limit,
            uid=request.uid,
            randomize=request.randomize,
        ) as process:
            try:
                return IMAGE, _facts(process, request.spans)
            except PermissionError:  # the process is not dumpable: would_dump()
                return IMAGE, {}
    except NativeFailure as failure:
        return failure.name, {}


def vector_facts(vector: Sequence[tuple[int, int]], bits: int) -> dict[str, str]:
    """The order of the auxiliary vector's entries, and each value but i386's AT_SYSINFO."""
    facts = {"auxiliary vector": " ".join(name(key) for key, _ in vector)}
    for key, value in vector:
        if key != AT_SYSINFO or bits == 64:
            facts[name(key)] = f"{value:#x}"
    return facts


def shown(data: bytes, span: Span) -> str:
    """Bytes as hexadecimal digits, with zeros for what is not compared."""
    start = min(max(span.masked[0] - span.address, 0), len(data))
    end = min(max(sum(span.masked) - span.address, 0), len(data))
    return (data[:start] + bytes(end - start) + data[end:]).hex()


def _facts(process: NativeProcess, spans: tuple[Span, ...]) -> dict[str, str]:
    registers = process.registers()
    bits = 64 if "rip" in registers else 32
    facts = {"maps": process.maps()}
    facts |= vector_facts(decode(process.auxv(), bits // 8), bits)
    facts |= {register: f"{value:#x}" for register, value in registers.items() if not register.startswith("orig_")}
    comm, stat = process.stat()
    facts |= {key: f"{value:#x}" for key, value in stat.items()}
    facts["comm"] = comm
    for span in spans:
        facts[span.what] = shown(process.memory(span.address, span.length), span)
    return facts


class NativeServer:
    """An interpreter that does nothing but `ask_kernel`. Ends with this process, at the latest; `close` it."""

    def __init__(self) -> None:
        import subprocess

        source = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
        code = f"import sys; sys.path.insert(0, {source!r}); from loadstone.verify.kernel_side import serve; serve()"
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self._process.stdin is not None and self._process.stdout is not None
        self._requests, self._answers = self._process.stdin, self._process.stdout

    def ask(self, request: Request) -> Answer:
        """As `ask_kernel`."""
        spans = [tuple(span) for span in request.spans]
        pickle.dump((*request[:6], spans, request.randomize), self._requests)
        self._requests.flush()
        try:
            kind, facts = pickle.load(self._answers)
        except EOFError:
            raise HostError("the interpreter that asks the kernel has ended") from None
        if kind is None:
            raise HostError(facts)
        return kind, facts

    def close(self) -> None:
        """End it."""
        self._requests.close()
        self._answers.close()
        self._process.wait()


def serve() -> None:
    """Answer requests on standard input until it ends.

    Ctrl-C, which the terminal sends to every process of a command, is for the one that asks, and closes the pipes.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    for stream in (requests, answers):  # no program gets them, should one ever run
        os.set_inheritable(stream.fileno(), False)
    while True:
        try:
            *values, spans, randomize = pickle.load(requests)
        except EOFError:
            return
        answer: tuple[str | None, object]
        try:
            request = Request._make([*values, tuple(Span(*span) for span in spans), randomize])
            answer = ask_kernel(request)
        except HostError as error:
            answer = None, str(error)
        try:
            pickle.dump(answer, answers)
            answers.flush()
        except BrokenPipeError:
            os._exit(0)  # nobody wants it any more; an ordinary exit would try to write it again

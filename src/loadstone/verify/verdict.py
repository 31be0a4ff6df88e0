"""The two verdicts on a case, the kernel's and Loadstone's, and what differs between them.

A verdict is an errno, a signal after the point of no return, or an image. Images are compared in `/proc/PID/maps`, the
auxiliary vector, the registers, the addresses in `/proc/PID/stat`, the whole initial stack, and the pages in which the
kernel cleared a tail. Not compared, because they must differ: the 16 random bytes, and for i386 the value of
AT_SYSINFO, which is wherever the build of the 32-bit vDSO has it.
"""

from __future__ import annotations

import os
import signal
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import thread_time_ns
from typing import TYPE_CHECKING, NamedTuple

from loadstone.errors import LinuxError
from loadstone.linux.exec.program import ExecCredentials
from loadstone.linux.profile import RLIM_INFINITY, RLIMIT_STACK
from loadstone.memory.peek import peek
from loadstone.verify.case import Case
from loadstone.verify.kernel_side import IMAGE, Answer, Request, Span, ask_kernel, shown, vector_facts
from loadstone.vfs.flags import O_WRONLY

if TYPE_CHECKING:
    from loadstone.linux.exec.new_image import ExecImage
    from loadstone.memory.vma import Vma
    from loadstone.verify.host_world import HostWorld

PAGE = 4096
Ask = Callable[[Request], Answer]
_RANDOM_BYTES = 16
_MOST_SECONDS = 10  # of CPU time for one exec
_STAT = ("start_code", "end_code", "start_data", "end_data", "start_stack", "start_brk")


class Verdict(NamedTuple):
    """What came of one execve.

    Attributes:
        kind: an errno's name, `signal N`, `image`, or `traceback`.
        facts: for an image what can be compared, by name (of the kernel's: {} if it shows nothing); for a traceback
            its text.
        spans: the memory whose bytes are among the facts.
        cost_ns: CPU time that Loadstone took; 0 for the kernel.
    """

    kind: str
    facts: dict[str, str]
    spans: tuple[Span, ...] = ()
    cost_ns: int = 0


class Judged(NamedTuple):
    """Both verdicts on one case and what differs: (what, the kernel's, Loadstone's)."""

    kernel: Verdict
    own: Verdict
    differences: tuple[tuple[str, str, str], ...]

    @property
    def kind(self) -> str:
        """The class of the disagreement: its first difference, without values or addresses; "" if there is none."""
        if self.kernel.kind != self.own.kind:
            return f"{self.kernel.kind} / {self.own.kind}"
        return self.differences[0][0].partition(" 0x")[0] if self.differences else ""


def judge(case: Case, world: HostWorld, directory: str, ask: Ask = ask_kernel) -> Judged:
    """Both verdicts on `case`, whose files are in `directory`. `ask`: how the kernel is asked."""
    with _opened_for_writing(case, world, directory):
        own = own_verdict(case, world, directory)
        kernel = kernel_verdict(case, directory, own.spans, ask)
    return Judged(kernel, own, tuple(_differences(kernel, own)))


def kernel_verdict(case: Case, directory: str, spans: tuple[Span, ...] = (), ask: Ask = ask_kernel) -> Verdict:
    """The kernel's verdict; of an image also the bytes at `spans`. Raises HostError where it cannot be asked."""
    request = Request(case.executed, case.argv, case.envp, directory, case.stack_limit, case.uid, spans)
    return Verdict(*ask(request))


def own_verdict(case: Case, world: HostWorld, directory: str) -> Verdict:
    """Loadstone's verdict. An exception that is no LinuxError, Endless among them, is a verdict too: `traceback`."""
    usual, limit = world.who, world.rlimits[RLIMIT_STACK]
    world.cwd = directory
    if case.uid is not None:
        world.who = ExecCredentials(case.uid, case.uid, case.uid, case.uid)
    if case.stack_limit is not None:
        world.rlimits[RLIMIT_STACK] = (case.stack_limit & RLIM_INFINITY, limit[1])
    start = thread_time_ns()
    try:
        with _bounded():
            image = world.exec(case.executed, case.argv, case.envp)
        cost = thread_time_ns() - start
        try:
            spans = _spans(image)
            return Verdict(IMAGE, _own_facts(image, spans), spans, cost)
        finally:
            image.space.release()
    except LinuxError as error:
        kind = f"signal {error.fatal_signal}" if error.fatal_signal else error.name
        return Verdict(kind, {}, (), thread_time_ns() - start)
    except Exception:
        return Verdict("traceback", {"text": traceback.format_exc()}, (), thread_time_ns() - start)
    finally:
        world.who, world.rlimits[RLIMIT_STACK] = usual, limit


class Endless(Exception):  # noqa: N818 - the word for it
    """An exec took more CPU time than any can need."""


@contextmanager
def _bounded() -> Iterator[None]:
    """Raise Endless where Loadstone does not come to an end; only the main thread can be told."""

    def late(*_: object) -> None:
        raise Endless(f"more than {_MOST_SECONDS} s of CPU time")

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGVTALRM, late)
    signal.setitimer(signal.ITIMER_VIRTUAL, _MOST_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


@contextmanager
def _opened_for_writing(case: Case, world: HostWorld, directory: str) -> Iterator[None]:
    """The case's busy files, open for writing on both sides."""
    descriptors, files = [], []
    try:
        for name in case.busy:
            path = os.path.join(directory, name)
            descriptors.append(os.open(path, os.O_WRONLY | os.O_CLOEXEC))
            file = world.vfs.open(path, O_WRONLY)
            file.hold()
            files.append(file)
        yield
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
        for file in files:
            file.close()


def _spans(image: ExecImage) -> tuple[Span, ...]:
    """The initial stack, and each page whose tail load_elf_binary cleared."""
    stack = image.stack
    masked = stack.random_address, _RANDOM_BYTES
    found = [Span("stack", stack.pointer, stack.top - stack.pointer, masked)]
    plans = [(image.elf, image.bias)]
    if image.interpreter_plan is not None:
        plans.append((image.interpreter_plan, image.interpreter_bias))
    for plan, bias in plans:
        for segment in plan.segments:
            if segment.clear_end > segment.clear_start:
                page = (segment.clear_start + bias) % (1 << 64) & -PAGE
                found.append(Span(f"page {page:#x}", page, PAGE, masked))  # a segment may lie over the stack
    return tuple(found)


def _own_facts(image: ExecImage, spans: tuple[Span, ...]) -> dict[str, str]:
    space, stack = image.space, image.stack
    facts = {"maps": space.render_maps()}
    facts |= vector_facts(image.auxv, image.plan.bits)
    facts |= {register: f"{value:#x}" for register, value in image.registers.items()}
    values = (
        image.start_code,
        image.end_code,
        image.start_data,
        image.end_data,
        space.start_stack,
        space.start_brk,
    )
    facts |= {key: f"{value:#x}" for key, value in zip(_STAT, values, strict=True)}
    facts["arg_start"], facts["arg_end"] = f"{stack.argument_start:#x}", f"{stack.argument_end:#x}"
    facts["env_start"], facts["env_end"] = f"{stack.environment_start:#x}", f"{stack.environment_end:#x}"
    facts["comm"] = image.name
    for span in spans:
        facts[span.what] = shown(_peek(image, span), span)
    return facts


def _peek(image: ExecImage, span: Span) -> bytes:
    """What is there, up to the first address that cannot be read."""
    data = b""
    while len(data) < span.length:
        address = span.address + len(data)
        count = min(span.length - len(data), PAGE - address % PAGE)
        vma = image.space.find(address)
        if vma is None or (vma.backing is not None and _past_the_end(vma, address)):
            break
        data += peek(image.space, address, count)
    return data


def _past_the_end(vma: Vma, address: int) -> bool:
    """Whether no page of the mapped file is there: touching it would be SIGBUS, and ptrace finds nothing."""
    assert vma.backing is not None
    return vma.offset + (address & -PAGE) - vma.start >= vma.backing.size


def _differences(kernel: Verdict, own: Verdict) -> list[tuple[str, str, str]]:
    if kernel.kind != own.kind:
        return [("verdict", kernel.kind, own.facts.get("text", own.kind) if own.kind == "traceback" else own.kind)]
    if kernel.kind != IMAGE or not kernel.facts:
        return []
    found = []
    for what in own.facts.keys() | kernel.facts.keys():
        ours, theirs = own.facts.get(what, "(none)"), kernel.facts.get(what, "(none)")
        if ours != theirs:
            found.append((what, *_shortened(theirs, ours)))
    order = list(own.facts)
    return sorted(found, key=lambda difference: order.index(difference[0]) if difference[0] in order else -1)


def _shortened(theirs: str, ours: str) -> tuple[str, str]:
    """Long values from a little before the first difference on."""
    if max(len(theirs), len(ours)) <= 200 or "\n" in theirs:
        return theirs, ours
    same = next((at for at, (one, other) in enumerate(zip(theirs, ours, strict=False)) if one != other), 0)
    start = max(same - 16, 0) & -2
    return f"byte {start // 2}: {theirs[start : start + 64]}", f"byte {start // 2}: {ours[start : start + 64]}"

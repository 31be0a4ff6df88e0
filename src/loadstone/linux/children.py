"""Waiting for children (kernel/exit.c, do_wait): which child, which change, and what is told of it."""

from __future__ import annotations

from errno import ECHILD
from struct import Struct
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.linux.ending import CLD_CONTINUED, CLD_STOPPED, exit_code, status_word
from loadstone.linux.of_task import linux_of
from loadstone.linux.signal.signals import SIGCHLD, SIGCONT
from loadstone.linux.waited import WALL, WCLONE, WCONTINUED, WEXITED, WNOHANG, WNOWAIT, WUNTRACED, Report
from loadstone.wait import Wait

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from loadstone.kernel.process import Process, Task, Usage
    from loadstone.linux.waited import Selectable

_RUSAGE = Struct("<16q")
_PAGE_KIB = 4


def _of_child(child: Process, code: int, value: int, usage: Usage) -> Report:
    return Report(child.pid, child.credentials.uid, code, value, usage, _status(child, code, value))


def _status(child: Process, code: int, value: int) -> int:
    if code == CLD_CONTINUED:
        return 0xFFFF
    if code == CLD_STOPPED:
        return value << 8 | 0x7F
    assert child.status is not None
    return status_word(child.status)


def wait_for_child(
    task: Task, selects: Callable[[Selectable], bool], options: int
) -> Generator[Wait, str, Report | None]:
    """The first child that `selects` holds for and that has changed as `options` ask; None with WNOHANG.

    Raises LinuxError(ECHILD) if there is none to wait for.
    """
    process = task.process
    while True:
        report, traces = _traced_change(task, selects, options)
        if report is not None:
            return report
        candidates = [child for child in process.children.values() if selects(child) and _is_kind(child, options)]
        if not candidates and not traces:
            raise LinuxError(ECHILD, "no child to wait for")
        for child in candidates:
            report = _change_of(child, options)
            if report is not None:
                return report
        if options & WNOHANG:
            return None
        yield Wait((process.child_events,))


def _traced_change(task: Task, selects: Callable[[Selectable], bool], options: int) -> tuple[Report | None, bool]:
    """What has happened to a thread that the process traces, and whether there is such a thread (ptrace_do_wait)."""
    tracing = linux_of(task).calls.tracing
    if tracing is None:
        return None, False
    from loadstone.linux.tracing.wait import traced_change

    return traced_change(tracing, task.process, selects, options)


def _is_kind(child: Process, options: int) -> bool:
    """Children whose end is told by another signal than SIGCHLD are "clone" children (kernel: eligible_child).

    A zombie only counts where the end of children is waited for.
    """
    if child.status is not None and not options & WEXITED:
        return False
    return bool(options & WALL) or (child.exit_signal != SIGCHLD) == bool(options & WCLONE)


def _change_of(child: Process, options: int) -> Report | None:
    if child.status is not None:
        return _reap(child, options) if options & WEXITED else None
    number = child.unreported
    if number is None:
        return None
    stopped = number != SIGCONT
    if not options & (WUNTRACED if stopped else WCONTINUED):
        return None
    if not options & WNOWAIT:
        child.unreported = None
    return _of_child(child, CLD_STOPPED if stopped else CLD_CONTINUED, number, child.total_usage())


def _reap(child: Process, options: int) -> Report:
    """A zombie is told of; unless WNOWAIT keeps it, it is gone, and its parent has what it took."""
    usage = child.usage.copy()
    usage.add(child.children_usage)
    report = _of_child(child, *exit_code(child), usage)
    if not options & WNOWAIT:
        assert child.parent is not None
        child.parent.children_usage.add(usage)
        child.kernel.reap(child)
    return report


def pack_usage(usage: Usage) -> bytes:
    """`struct rusage`: peak memory is in KiB."""
    values = [0] * 16
    values[0:2] = divmod(usage.user_ns // 1000, 1_000_000)
    values[2:4] = divmod(usage.system_ns // 1000, 1_000_000)
    values[4] = usage.peak_pages * _PAGE_KIB
    values[8:10] = usage.minor_faults, usage.major_faults
    values[14] = usage.switches  # ru_nvcsw, ru_nivcsw: not told apart
    return _RUSAGE.pack(*values)

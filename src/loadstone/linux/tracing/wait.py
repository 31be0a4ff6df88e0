"""Waiting for threads that a process traces: their stops, and the end of those that are not its children."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadstone.kernel.process import Usage
from loadstone.lean import NamedTuple
from loadstone.linux.ending import CLD_EXITED, CLD_KILLED, CLD_TRAPPED
from loadstone.linux.waited import WEXITED, WNOWAIT, Report

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadstone.kernel.process import Process
    from loadstone.linux.tracing.ptrace import DeadTracee, Tracee, Tracing
    from loadstone.linux.waited import Selectable


class _Thread(NamedTuple):
    """A thread, as a wait selects it."""

    pid: int
    group: int


def traced_change(
    tracing: Tracing, tracer: Process, selects: Callable[[Selectable], bool], options: int
) -> tuple[Report | None, bool]:
    """What has happened to a thread that `tracer` traces, and whether there is one to wait for."""
    found = False
    for tracee in tracing.of(tracer):
        if selects(_Thread(tracee.task.tid, tracee.task.process.group)):
            found = True
            if tracee.unreported:
                return _stop_of(tracee, options), True
    for dead in [dead for dead in tracing.dead if dead.tracer is tracer and options & WEXITED]:
        if selects(_Thread(dead.pid, dead.group)):
            if not options & WNOWAIT:
                tracing.dead.remove(dead)
            return _end_of(dead), True
    return None, found


def _stop_of(tracee: Tracee, options: int) -> Report:
    stop, process = tracee.stop, tracee.task.process
    assert stop is not None
    if not options & WNOWAIT:
        tracee.unreported = False
    word = stop.code << 8 | 0x7F
    return Report(
        tracee.task.tid, process.credentials.uid, CLD_TRAPPED, stop.code & 0xFFFF, process.total_usage(), word
    )


def _end_of(dead: DeadTracee) -> Report:
    signal = dead.status & 0x7F
    value = signal or dead.status >> 8
    return Report(dead.pid, dead.uid, CLD_KILLED if signal else CLD_EXITED, value, Usage(), dead.status)

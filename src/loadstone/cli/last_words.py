"""What `run` says when a program has ended: what ended it, what it wanted and did not get, what is not kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadstone.api import Machine
    from loadstone.cli.observers import Observers
    from loadstone.kernel.process import ExitStatus, Process

_MOST_NAMES = 5
_NETWORK = "network: "


def say_last_words(
    machine: Machine, observers: Observers, program: str, status: ExitStatus, ended: Sequence[Process]
) -> None:
    """Say them, if there are any. `ended`: the processes that ended only because the program did."""
    lines = [note for note in machine.killed_for_memory if note != status.note]
    lines += _end(observers, program, status)
    if not status.timed_out and not status.note:
        lines += _left_running(program, ended)
    for part in (_too_many_descriptors, _unimplemented, _no_network, _core_files, _ignored_set_id, _discarded):
        lines += part(machine)
    if lines:
        from loadstone.cli.main import say

        say(*lines)


def _end(observers: Observers, program: str, status: ExitStatus) -> list[str]:
    if status.timed_out:
        return ["the time of --timeout is up"]
    if status.note:
        return [status.note]
    return _death(observers, program, status.signal) if status.signal else []


def _death(observers: Observers, program: str, number: int) -> list[str]:
    from loadstone.linux.signal.signals import name
    from loadstone.report.death import QUIET, death_line

    watch = observers.death
    if name(number) in QUIET:
        return []
    if watch is None or watch.death is None or watch.symbols is None or watch.death.signal != name(number):
        return [f"killed by {name(number)}"]
    return [death_line(watch.death, program, watch.symbols)]


def _left_running(program: str, ended: Sequence[Process]) -> list[str]:
    if not ended:
        return []
    names = ", ".join(f"{process.name} (pid {process.pid})" for process in ended[:_MOST_NAMES])
    more = f" and {len(ended) - _MOST_NAMES} more" if len(ended) > _MOST_NAMES else ""
    return [f"ended with {program}, which left them running: {names}{more}; --wait-all waits for them"]


def _too_many_descriptors(machine: Machine) -> list[str]:
    descriptors = machine.kernel.descriptors
    if not descriptors.refused:
        return []
    return [f"more than {descriptors.most:,} descriptors were wanted at a time (--max-files)"]


def _unimplemented(machine: Machine) -> list[str]:
    if not machine.unimplemented:
        return []
    calls = ", ".join(f"{name} ({count})" for name, count in sorted(machine.unimplemented.items()))
    return [f"asked for and not implemented: {calls}"]


def _no_network(machine: Machine) -> list[str]:
    outside = [name.removeprefix(_NETWORK) for name in machine.refused if name.startswith(_NETWORK)]
    if not outside:
        return []
    more = f", and {len(outside) - 1} more" if len(outside) > 1 else ""
    return [f"there is no network outside of the machine; refused: {outside[0]}{more}"]


def _core_files(machine: Machine) -> list[str]:
    files = machine.linux.core_files
    if files is None:
        return []
    from loadstone.report.discarded import amount

    return [f"core dumped to {path} ({amount(size)})" for path, size in files.written] + files.failed


def _ignored_set_id(machine: Machine) -> list[str]:
    if not machine.ignored_set_id:
        return []
    names = ", ".join(machine.ignored_set_id)
    return [f"set-user-ID and set-group-ID bits were ignored: {names} ran with the rights of its caller"]


def _discarded(machine: Machine) -> list[str]:
    unkept = machine.discarded()
    if not unkept:
        return []
    from loadstone.report.discarded import discarded_line

    return [discarded_line(unkept, machine.keep_option())]

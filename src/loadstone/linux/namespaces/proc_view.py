"""What /proc/PID/stat and status tell where PID and user namespaces give other numbers (fs/proc/array.c)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadstone.linux.of_task import pids_of

if TYPE_CHECKING:
    from loadstone.kernel.process import Process
    from loadstone.linux.namespaces.pids import PidNamespace
    from loadstone.linux.namespaces.users import IdMap, UserNamespace
    from loadstone.linux.proc.text import ProcessFacts


def facts_seen(
    facts: ProcessFacts, process: Process, pids: PidNamespace | None, users: UserNamespace | None
) -> ProcessFacts:
    """The facts of a process in the numbers of a /proc (`pids`) and of who reads it (`users`); None for the first."""
    if users is not None:
        facts = facts._replace(
            uids=_four(users.uids, facts.uids), gids=_four(users.gids, facts.gids),
            groups=tuple(map(users.gids.shown, facts.groups)),
        )  # fmt: skip
    numbers = (facts.tgid, facts.pid, facts.group, facts.session)
    facts = facts._replace(
        inside=tuple(tuple(map(space.seen, numbers)) for space in _further_inside(pids_of(process), pids))
    )
    if pids is None:
        return facts
    return facts._replace(
        pid=pids.seen(facts.pid), tgid=pids.seen(facts.tgid), parent=pids.seen(facts.parent),
        group=pids.seen(facts.group), session=pids.seen(facts.session), tracer=pids.seen(facts.tracer),
        tty_group=pids.seen(facts.tty_group) if facts.tty_group > 0 else facts.tty_group,
    )  # fmt: skip


def _four(numbers: IdMap, ids: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    real, effective, saved, of_files = map(numbers.shown, ids)
    return real, effective, saved, of_files


def _further_inside(own: PidNamespace | None, shown: PidNamespace | None) -> list[PidNamespace]:
    """The namespaces below the one that is shown, down to the process's own."""
    spaces = list(own.up_to_first()) if own is not None else []
    level = shown.level if shown is not None else 0
    return [space for space in reversed(spaces) if space.level > level]

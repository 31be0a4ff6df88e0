"""System calls of programs that are not in the first PID and user namespaces: the numbers they say and are told.

Handlers know the machine's numbers only. Once there is another namespace of these kinds, every handler whose parameters
or result are annotated as `Pid`, `Uid` or `Gid` is called through a translator; until then nothing of this is loaded.
Numbers that are read from or written to memory are translated by the handlers themselves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from loadstone.errors import LinuxError
from loadstone.linux.namespaces.users import NOBODY
from loadstone.linux.of_task import pid_meant, pid_seen

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadstone.kernel.process import Task
    from loadstone.wait import Blocking

    Handler = Callable[..., Any]
    Translate = Callable[[Task, int], int]


def _user_meant(task: Task, number: int) -> int:
    users = task.process.credentials.users
    return number if users is None else int(users.uids.meant(number))


def _group_meant(task: Task, number: int) -> int:
    users = task.process.credentials.users
    return number if users is None else int(users.gids.meant(number))


def _user_shown(task: Task, number: int) -> int:
    users = task.process.credentials.users
    return number if users is None else int(users.uids.shown(number))


def _group_shown(task: Task, number: int) -> int:
    users = task.process.credentials.users
    return number if users is None else int(users.gids.shown(number))


def _process_meant(task: Task, number: int) -> int:
    return pid_meant(task.process, number) if number != _NO_GROUP else number


def _process_seen(task: Task, number: int) -> int:
    return pid_seen(task.process, number)


_MEANT: dict[str, Translate] = {"Pid": _process_meant, "Uid": _user_meant, "Gid": _group_meant}
_SHOWN: dict[str, Translate] = {"Pid": _process_seen, "Uid": _user_shown, "Gid": _group_shown}
_NO_GROUP = -(1 << 31)  # that has no positive counterpart
_FORGIVING = ("setfsuid", "setfsgid")  # a number that means nothing is ignored, as all that is not allowed


def translated(handler: Handler) -> Handler:
    """The handler as it is to be called once there are several namespaces."""
    annotations = dict(handler.__annotations__)
    result = _SHOWN.get(annotations.pop("return", "").split(" ", 1)[0])
    kinds = list(annotations.values())[1:]
    meant = [(at, _MEANT[kind]) for at, kind in enumerate(kinds) if kind in _MEANT]
    if not meant and result is None:
        return handler
    forgives = handler.__name__ in _FORGIVING

    def translating(task: Task, *arguments: int) -> Any:
        values = list(arguments)
        for at, translate in meant:
            try:
                values[at] = translate(task, values[at])
            except LinuxError:
                if not forgives:
                    raise
                values[at] = NOBODY
        answer = handler(task, *values)
        if result is None or answer is None:
            return answer
        return result(task, answer) if isinstance(answer, int) else _later(task, answer, result)

    return translating


def _later(task: Task, waiting: Blocking, result: Translate) -> Blocking:
    return result(task, (yield from waiting))

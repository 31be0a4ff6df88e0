"""How a system call goes on after a signal interrupted it (include/linux/errno.h, kernel/signal.c)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadstone.kernel.process import Task
    from loadstone.wait import Blocking

ERESTARTSYS, ERESTARTNOINTR, ERESTARTNOHAND, ERESTART_RESTARTBLOCK = 512, 513, 514, 516
NAMES = {
    ERESTARTSYS: "ERESTARTSYS",
    ERESTARTNOINTR: "ERESTARTNOINTR",
    ERESTARTNOHAND: "ERESTARTNOHAND",
    ERESTART_RESTARTBLOCK: "ERESTART_RESTARTBLOCK",
}


class Restart(Exception):  # noqa: N818 - not an error: the call's way to say how it goes on
    """A signal interrupted the call.

    `kind` is one of the four ERESTART numbers. ERESTARTSYS: run again, unless a handler without SA_RESTART ran (then
    EINTR). ERESTARTNOINTR: always run again. ERESTARTNOHAND: EINTR if any handler ran. ERESTART_RESTARTBLOCK: the
    same, but it goes on as `block(task)` through restart_syscall(2). An `Interrupted` that leaves a handler is
    ERESTARTSYS.
    """

    def __init__(self, kind: int, block: Callable[[Task], Blocking] | None = None) -> None:
        super().__init__(kind)
        self.kind = kind
        self.block = block

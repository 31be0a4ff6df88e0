"""The host's signals and terminal while a machine runs: Ctrl-C is the guest's, and all is put back afterwards."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import FrameType

    from loadstone.kernel.kernel import Kernel

_FORWARDED = (signal.SIGINT, signal.SIGQUIT, signal.SIGWINCH)
_ENDING = (signal.SIGTERM, signal.SIGHUP)
_PATIENCE = 2.0  # seconds within which the third Ctrl-C ends the machine


class Console:
    """A context: signals of the host's go to the guest, terminal modes are restored on every way out.

    SIGINT, SIGQUIT and SIGWINCH are the guest's; the third SIGINT within two seconds ends the machine, and so do
    SIGTERM and SIGHUP. Only the main thread of Python may do this; elsewhere it does nothing.
    """

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._before: dict[int, Any] = {}
        self._interrupts: list[float] = []

    def __enter__(self) -> None:
        try:
            for number in _FORWARDED:
                self._before[number] = signal.signal(number, self._forward)
            for number in _ENDING:
                self._before[number] = signal.signal(number, self._end)
            self._before[signal.SIGPIPE] = signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        except ValueError:  # not the main thread: Python lets nobody else handle signals
            return

    def __exit__(self, *_: object) -> None:
        self._kernel.personality.restore_terminal()
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def _forward(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGINT:
            now = time.monotonic()
            self._interrupts = [then for then in self._interrupts if now - then < _PATIENCE] + [now]
            if len(self._interrupts) >= 3:
                self._kernel.scheduler.stop(signal.SIGINT)
                return
        self._kernel.scheduler.post(number)

    def _end(self, number: int, _frame: FrameType | None) -> None:
        self._kernel.scheduler.stop(number)

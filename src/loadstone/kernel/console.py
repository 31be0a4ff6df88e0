"""The host's signals and terminal while a machine runs: Ctrl-C is the guest's, and all is put back afterwards."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import FrameType

    from loadstone.kernel.kernel import Kernel

_INSISTING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_FORWARDED = (*_INSISTING, signal.SIGQUIT, signal.SIGWINCH)
_SUSPENDING = signal.SIGTSTP
_PYTHONS_OWN = (signal.SIGPIPE, signal.SIGXFSZ)
_PATIENCE = 2.0  # seconds within which the third of the same kind ends the machine
_GRACE = 1.0  # seconds that a machine has to stop of itself


def ignored_by_host() -> list[int]:
    """The signals that Loadstone was started with as ignored (by nohup, or a shell's `&`), which a program inherits.

    Also those that the C library keeps for itself, of which Python knows nothing: what posix_spawn(3) started, as by
    make, ignores 32 and 33. Python itself ignores SIGPIPE and SIGXFSZ: of those nobody can tell any more.
    """
    with open("/proc/self/status", "rb") as status:
        ignored = next(int(line[7:], 16) for line in status if line.startswith(b"SigIgn:"))
    return [number for number in range(1, 65) if ignored >> number - 1 & 1 and number not in _PYTHONS_OWN]


class Console:
    """A context: signals of the host's go to the guest, terminal modes are restored on every way out.

    SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP and SIGWINCH are the guest's; when that stops the program we were started
    for, we stop as well, as a job of the user's shell. The third SIGINT, SIGTERM or SIGHUP within two seconds ends the
    machine. A machine that does not stop when it should, because one system call keeps it busy, is stopped in the
    middle of that. What Loadstone was started with as ignored ends no machine: its programs ignore it until they say
    otherwise. Only the main thread of Python may do this; elsewhere it does nothing.
    """

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._before: dict[int, Any] = {}
        self._came: dict[int, list[float]] = {number: [] for number in _INSISTING}  # when, within _PATIENCE
        self._timer: tuple[float, float] | None = None  # somebody else's, while ours is set

    def __enter__(self) -> None:
        try:
            for number in _FORWARDED:
                self._handle(number)
            if signal.getsignal(_SUSPENDING) == signal.SIG_DFL:  # else nobody controls us as a job
                self._handle(_SUSPENDING)
            self._before[signal.SIGPIPE] = signal.signal(signal.SIGPIPE, signal.SIG_IGN)
            self._kernel.scheduler.on_all_stopped = self._suspend
            left = self._kernel.scheduler.start_deadline()
            if left is not None:
                self._insist_in(left + _GRACE)
        except ValueError:  # not the main thread: Python lets nobody else handle signals
            return

    def __exit__(self, *_: object) -> None:
        if self._timer is not None:
            signal.setitimer(signal.ITIMER_REAL, *self._timer)
            self._timer = None
        self._kernel.scheduler.on_all_stopped = lambda for_good: None
        self._kernel.personality.restore_terminal()
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def _handle(self, number: int) -> None:
        """Forward it: also what we ignored, since a program may handle it, if only it was told that it was ignored."""
        if signal.getsignal(number) is not signal.SIG_IGN or not self._kernel.options.deterministic:
            self._before[number] = signal.signal(number, self._forward)

    def _forward(self, number: int, _frame: FrameType | None) -> None:
        if number in _INSISTING and self._before[number] is not signal.SIG_IGN:
            now = time.monotonic()
            came = self._came[number] = [then for then in self._came[number] if now - then < _PATIENCE] + [now]
            if len(came) >= 3:
                self._end(number)
                return
        self._kernel.scheduler.post(number)

    def _suspend(self, for_good: bool) -> None:
        """Nobody runs, and the program that we were started for is stopped: be stopped until we are continued.

        Not where a program stopped it that may yet continue it; what stops jobs is the user's, who wants a prompt.
        """
        kernel = self._kernel
        by = {process.stopped_by for process in kernel.processes.values() if process.is_first} - {0}
        if not by or (by == {signal.SIGSTOP} and not for_good):
            return
        resume = kernel.personality.suspend_terminal()
        before = signal.signal(_SUSPENDING, signal.SIG_DFL)
        os.kill(os.getpid(), _SUSPENDING)  # returns when SIGCONT came; at once where nobody could continue us
        signal.signal(_SUSPENDING, before)
        resume()
        kernel.personality.console_signal(signal.SIGCONT)

    def _end(self, number: int) -> None:
        self._kernel.scheduler.stop(number)
        self._insist_in(_GRACE)

    def _insist_in(self, seconds: float) -> None:
        if self._timer is None:
            self._before[signal.SIGALRM] = signal.signal(signal.SIGALRM, self._insist)
            self._timer = signal.setitimer(signal.ITIMER_REAL, seconds)
        else:
            signal.setitimer(signal.ITIMER_REAL, seconds)

    def _insist(self, _number: int, _frame: FrameType | None) -> None:
        self._kernel.scheduler.insist()

"""Getting a thread out of KVM_RUN: a signal that is blocked but while the guest runs.

KVM_RUN swaps the thread's signal mask (KVM_SET_SIGNAL_MASK) and returns EINTR when one that it lets in is pending,
before as well as after the guest was entered, so no kick is lost. A POSIX timer sends one to the thread at every tick
of its CPU time (by the clock they would come as well while others use the host's CPU, and find nothing done): that
bounds a time slice. A slice that is longer than usual has fewer of them.
"""

from __future__ import annotations

import _thread
import ctypes
import signal
import struct
from time import CLOCK_THREAD_CPUTIME_ID

from loadstone.errors import HostError

KICK = signal.SIGRTMAX - 3
TICK_NS = 8_000_000  # a tick costs 0.1 ms with the slice that it ends
RARE_TICK_NS = 4 * TICK_NS
TICK_CLOCK = CLOCK_THREAD_CPUTIME_ID
_SIGEV_THREAD_ID = 4


class Kicks:
    """The kick signal and its timer, for one thread at a time."""

    # How many of these have the signal blocked in a thread, by thread. The mask is the thread's and not ours: the first
    # one that is closed must not open it to the timer of another, for the signal would end the process.
    _blocking: dict[int, int] = {}

    def __init__(self) -> None:
        library = ctypes.CDLL(None, use_errno=True)
        try:
            self._create, self._set, self._delete = (
                getattr(library, f"timer_{verb}") for verb in ("create", "settime", "delete")
            )
        except AttributeError:  # a C library before 2.34 has them elsewhere
            library = ctypes.CDLL("librt.so.1", use_errno=True)
            self._create, self._set, self._delete = library.timer_create, library.timer_settime, library.timer_delete
        self._timer = ctypes.c_void_p()
        self._period = 0
        self._blocked_in: set[int] = set()  # threads in which the signal is blocked because of us
        self.thread = 0

    def attach(self) -> int:
        """Kick the calling thread from now on; the signal mask for its KVM_RUN."""
        self.detach()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {KICK})
        self.thread = _thread.get_ident()
        self._count(KICK in before)
        event = struct.pack("<QiiI", 0, KICK, _SIGEV_THREAD_ID, _thread.get_native_id()).ljust(64, b"\0")
        if self._create(TICK_CLOCK, ctypes.create_string_buffer(event, 64), ctypes.byref(self._timer)):
            raise HostError(f"timer_create: error {ctypes.get_errno()}")
        self._period = 0
        self.pace(0)
        return sum(1 << (number - 1) for number in before if number != KICK)

    def pace(self, budget: int) -> None:
        """Tick as often as a slice of `budget` ns asks for, from now on."""
        period = RARE_TICK_NS if budget >= RARE_TICK_NS else TICK_NS
        if period != self._period:
            self._period = period
            times = (ctypes.c_long * 4)(0, period, 0, period)
            if self._set(self._timer, 0, times, None):
                raise HostError(f"timer_settime: error {ctypes.get_errno()}")

    def _count(self, was_blocked: bool) -> None:
        """The signal is blocked here for us, too; if not for us or our like, it is the caller's own affair."""
        thread, blocking = self.thread, self._blocking
        if not was_blocked:
            blocking[thread] = 1  # what is said of the number, if anything, is of a thread that has gone
        elif thread in self._blocked_in or thread not in blocking:
            return
        else:
            blocking[thread] += 1
        self._blocked_in.add(thread)

    def kick(self) -> None:
        """Make the thread's KVM_RUN, this one or the next, return. From any thread or signal handler."""
        if self.thread:
            signal.pthread_kill(self.thread, KICK)

    @staticmethod
    def take() -> bool:
        """Take a kick that is pending; whether there was one."""
        return signal.sigtimedwait((KICK,), 0) is not None

    def detach(self) -> None:
        """No more kicks."""
        if self.thread:
            self._delete(self._timer)
            self.thread = 0

    def close(self) -> None:
        """No more kicks, and the calling thread's signal mask is as it was. (Other threads keep the signal blocked.)"""
        self.detach()
        thread = _thread.get_ident()
        if thread in self._blocked_in:
            self._blocking[thread] -= 1
            if not self._blocking[thread]:
                del self._blocking[thread]
                while self.take():
                    pass
                signal.pthread_sigmask(signal.SIG_UNBLOCK, {KICK})
        self._blocked_in.clear()

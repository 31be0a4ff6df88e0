"""When system calls may be answered in the guest: what is asked of the kernel before a run, and told to it after one.

How they are answered is kvm_entry.py's. (Reads are offered by the kernel of its own accord: kvm_answers.py.)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from loadstone.machine.kvm_context import RAX
from loadstone.machine.kvm_foreseen import NO_CALL, SWITCHED
from loadstone.machine.signals_keeper import CALLS as SIGNALS_CALLS

if TYPE_CHECKING:
    from loadstone.machine.kvm_context import KvmContext
    from loadstone.machine.kvm_entry import EntryPage
    from loadstone.machine.kvm_foreseen import CallsKeeper
    from loadstone.machine.kvm_machine import KvmMachine
    from loadstone.machine.signals_keeper import SignalsKeeper

_EXPECTED_FOR = 8  # runs after one that changed a signal mask or an action: asking for them costs each run a little


class GuestCalls:
    """Opens the entry page for a run of one core, and settles what was answered after it. `window`: the registers."""

    __slots__ = ("_called", "_foreseen", "_machine", "_signals", "_signals_expected", "_window")

    def __init__(self, machine: KvmMachine, window: Any) -> None:
        self._machine = machine
        self._window = window
        self._called = SWITCHED  # what the program was left for last
        self._signals_expected = 0  # for so many runs more
        self._signals: SignalsKeeper | None = None  # whom changes of masks and actions in this run are told
        self._foreseen: CallsKeeper | None = None  # and whom calls that were foreseen

    def switch(self) -> None:
        """Another thread or address space is to run."""
        self._called = SWITCHED

    def leave_for(self, number: int) -> None:
        """The program has made a system call that is for the kernel."""
        self._called = number
        if number in SIGNALS_CALLS and self._machine.entry is not None:
            self._signals_expected = _EXPECTED_FOR

    def open(self, context: KvmContext, signals: SignalsKeeper | None, calls: CallsKeeper | None) -> None:
        """The program goes on: may it change its mask and actions, and which calls are foreseen?"""
        called, self._called = self._called, NO_CALL
        self._signals = self._foreseen = None
        page = self._machine.entry
        if page is None:
            return
        if signals is not None and self._signals_expected:
            self._signals = signals
            page.open_signals(signals)
        if calls is not None and self._foresee(page, context, calls, called):
            self._foreseen = calls

    def settle(self) -> None:
        """The program does not run: have the kernel know what was answered."""
        page = self._machine.entry
        if page is None:
            return
        if self._signals is not None:
            changed = page.settle_signals(self._signals)
            self._signals_expected = _EXPECTED_FOR if changed else self._signals_expected - 1
        if self._foreseen is not None:
            page.foreseen.settle(self._foreseen)

    def _foresee(self, page: EntryPage, context: KvmContext, keeper: CallsKeeper, called: int) -> bool:
        """Whether there are calls that are foreseen, now that the program has been left for `called`."""
        foreseen = page.foreseen
        if context.is_new:
            context.is_new = False
            foreseen.open(keeper)
        elif called != NO_CALL and foreseen.is_open:
            foreseen.go_on(keeper, called, self._window[RAX], page.reader)
        return foreseen.is_open

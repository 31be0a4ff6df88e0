"""Changes of signal masks and actions that the hook for SYSCALL makes by itself (hooks_signals.s).

The hook works on the process's own table of actions, and on a copy of the thread's mask in Control.
"""

from __future__ import annotations

import ctypes

from loadstone.machine.native_code import Control
from loadstone.machine.signals_keeper import Actions, SignalsKeeper

_EXPECTED_FOR = 4  # runs after one that made such a call


class SignalCalls:
    """Opens the hook for such calls before a run, and settles what it did after it.

    Attributes:
        keeper: who knows what the program has to do with signals; None: the kernel makes all calls.
        expected: for so many runs more it is worth asking the keeper.
        is_open: whether it has said that the program may.
    """

    __slots__ = ("_actions", "_control", "_pin", "expected", "is_open", "keeper")

    def __init__(self, control: Control) -> None:
        self.keeper: SignalsKeeper | None = None
        self.expected = 0
        self.is_open = False
        self._control = control
        self._actions: Actions | None = None  # whose table the hook has
        self._pin: ctypes.c_char | None = None  # which keeps that where it is

    def expect(self) -> None:
        """The program has made such a call; so it will make more."""
        if self.keeper is not None:
            self.expected = _EXPECTED_FOR

    def open(self) -> None:
        """The program goes on: may it change its mask and actions by itself?"""
        assert self.keeper is not None
        self.expected -= 1
        state = self.keeper.state()
        if state is None:
            return
        control = self._control
        control.blocked, actions = state
        if actions is not self._actions:
            self._actions, self._pin = actions, ctypes.c_char.from_buffer(actions.table)
            control.actions = ctypes.addressof(self._pin)
        control.signals_open = 1
        self.is_open = True

    def settle(self) -> None:
        """The program does not run: tell the keeper what it has done. Nothing is open now."""
        self.is_open = False
        control = self._control
        control.signals_open = 0
        mask_calls, action_calls = control.mask_calls, control.action_calls
        if mask_calls or action_calls:
            control.mask_calls = control.action_calls = 0
            assert self.keeper is not None
            self.keeper.answered(control.blocked, mask_calls, action_calls)
            self.expected = _EXPECTED_FOR

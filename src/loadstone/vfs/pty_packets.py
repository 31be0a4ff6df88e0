"""Packet mode of a pseudo-terminal's master: the first byte of a read says whether data follow, or what happened.

Sources: drivers/tty/pty.c, n_tty.c; ioctl_tty(2), TIOCPKT.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from loadstone.vfs.terminal_modes import CONTROL_CHARACTERS, EXTPROC, IXON, VSTART, VSTOP

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadstone.vfs.terminal_modes import Modes

# include/uapi/asm-generic/ioctls.h
DATA: Final = b"\0"
FLUSH_READ, FLUSH_WRITE, STOP, START, NO_STOP, DO_STOP, IOCTL = (1 << bit for bit in range(7))
_USUAL: Final = (CONTROL_CHARACTERS[VSTOP], CONTROL_CHARACTERS[VSTART])  # Ctrl-S and Ctrl-Q


class Packets:
    """What the master is still to be told: `status`, bits of TIOCPKT_*; none while the mode is not `on`.

    `wake` is called when there is something new to tell.
    """

    __slots__ = ("_wake", "on", "status")

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self.on = False
        self.status = 0

    def switch(self, on: bool) -> None:
        """TIOCPKT."""
        if on != self.on:
            self.status = 0
        self.on = on

    def tell(self, bits: int, instead_of: int = 0) -> None:
        """Something happened, and what it undoes is told no more."""
        if self.on:
            self.status = self.status & ~instead_of | bits
            self._wake()

    def tell_flow(self, stopped: bool) -> None:
        """The program's output stops, or goes on."""
        if stopped:
            self.tell(STOP, START)
        else:
            self.tell(START, STOP)

    def tell_modes(self, old: Modes, new: Modes) -> None:
        """The program changes its modes (pty_set_termios)."""
        if _usual_flow(old) != _usual_flow(new):
            self.tell(*((DO_STOP, NO_STOP) if _usual_flow(new) else (NO_STOP, DO_STOP)))
        if (old.lflag | new.lflag) & EXTPROC:
            self.tell(IOCTL)

    def take(self) -> bytes:
        """The byte for the master; it is told now."""
        status, self.status = self.status, 0
        return bytes((status,))


def _usual_flow(modes: Modes) -> bool:
    return bool(modes.iflag & IXON) and (modes.cc[VSTOP], modes.cc[VSTART]) == _USUAL

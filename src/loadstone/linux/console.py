"""The guest's controlling terminal: who is in the foreground, and the host's modes as they were before."""

from __future__ import annotations

from fcntl import ioctl
from typing import TYPE_CHECKING

from loadstone.linux.structs import TERMIOS

if TYPE_CHECKING:
    from loadstone.kernel.process import Process

TCGETS, TCSETSW = 0x5401, 0x5403
TOSTOP = 0o400


class Console:
    """What the machine keeps about terminals.

    `present`: whether there is one at all.
    `session`: the session whose controlling terminal it is; 0 for none. `foreground`: the process group that reads
    from it and gets its signals; 0 for none.
    Call `restore()` on every way out: it gives each host terminal that a guest changed its old modes back.
    """

    __slots__ = ("_saved", "foreground", "present", "session")

    def __init__(self) -> None:
        self.present = False
        self.session = self.foreground = 0
        self._saved: dict[int, bytes] = {}

    def take(self, process: Process) -> None:
        """The first program that is started has the terminal, in the foreground."""
        if not self.session and self.present:
            self.session, self.foreground = process.session, process.group

    def remember(self, fd: int) -> None:
        """Keep the modes of host terminal `fd`, which are about to be changed; only the first time counts."""
        if fd not in self._saved:
            self._saved[fd] = ioctl(fd, TCGETS, bytes(TERMIOS.size))

    @staticmethod
    def stops_output(fd: int) -> bool:
        """TOSTOP: whether background groups may not write to host terminal `fd`."""
        _, _, _, local, _, _ = TERMIOS.unpack(ioctl(fd, TCGETS, bytes(TERMIOS.size)))
        return bool(local & TOSTOP)

    def suspend(self) -> dict[int, bytes]:
        """Give the terminals their old modes for a while; the modes of now, for `go_on`."""
        modes = {fd: ioctl(fd, TCGETS, bytes(TERMIOS.size)) for fd in self._saved}
        saved = dict(self._saved)
        self.restore()
        self._saved = saved
        return modes

    @staticmethod
    def go_on(modes: dict[int, bytes]) -> None:
        """Set what `suspend` returned again."""
        for fd, mode in modes.items():
            ioctl(fd, TCSETSW, mode)

    def restore(self) -> None:
        """Give the host's terminals their modes back. Does no harm when called again, or when a terminal is gone."""
        saved, self._saved = self._saved, {}
        for fd, modes in saved.items():
            try:
                ioctl(fd, TCSETSW, modes)
            except OSError:
                continue

"""The machine's pseudo-terminals, and /dev/pts, where they have names. Source: fs/devpts/inode.c."""

from __future__ import annotations

from errno import ENOSPC, ENXIO
from os import makedev
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.lean import Protocol
from loadstone.vfs.devices import DeviceNode
from loadstone.vfs.flags import S_IFCHR, d_type
from loadstone.vfs.inode import ROOT, Identity
from loadstone.vfs.pty import MasterFile, Pty

if TYPE_CHECKING:
    from loadstone.clock import Clock
    from loadstone.vfs.file import OpenFile
    from loadstone.vfs.inode import Entry, Inode
    from loadstone.vfs.location import Location
    from loadstone.vfs.pipe import Waker

DEVPTS_DEVICE = 24
SLAVE_MAJOR = 136  # UNIX98_PTY_SLAVE_MAJOR
MOST = 4096  # /proc/sys/kernel/pty/max
_PTMX_INODE, _FIRST_INODE = 2, 3


class ProcessSide(Protocol):
    """What terminals need of processes."""

    def signal_group(self, group: int, number: int) -> None:
        """Send a signal to a process group."""

    def hang_up(self, session: int) -> None:
        """Tell the leader of a session that its terminal is gone."""

    def controlling(self) -> Pty | None:
        """The caller's controlling terminal; None if it is the host's. Raises LinuxError(ENXIO) if it has none."""

    def caller(self) -> Identity:
        """Who is opening a file now."""


class NoProcesses:
    """For a namespace without a machine around it."""

    def signal_group(self, group: int, number: int) -> None:
        """Nobody is there."""

    def hang_up(self, session: int) -> None:
        """Nobody is there."""

    def controlling(self) -> Pty | None:
        """The host's."""
        return None

    def caller(self) -> Identity:
        """Root."""
        return ROOT


class Terminals:
    """The pairs that exist, by number."""

    def __init__(self, wake: Waker, clock: Clock, side: ProcessSide) -> None:
        self.wake = wake
        self.clock = clock
        self.side = side
        self.pairs: dict[int, Pty] = {}
        self._nodes: dict[int, DeviceNode] = {}

    def open_master(self, inode: Inode, flags: int, location: Location | None) -> OpenFile:
        """A new pair, as /dev/ptmx makes one at each open; ENOSPC if there are too many."""
        number = next(n for n in range(len(self.pairs) + 1) if n not in self.pairs)
        if number >= MOST:
            raise LinuxError(ENOSPC)
        pair = self.pairs[number] = Pty(self, number)
        now = self.clock.realtime_ns()
        node = DeviceNode(
            DEVPTS_DEVICE, _FIRST_INODE + number, S_IFCHR | 0o666, makedev(SLAVE_MAJOR, number), pair.open_slave, now
        )
        who = self.side.caller()
        node.mode, node.uid, node.gid = S_IFCHR | 0o600, who.fsuid, who.fsgid
        self._nodes[number] = node
        return MasterFile(inode, flags, location, pair)

    def forget(self, pair: Pty) -> None:
        """A closed master takes the name away; the number is free when the last file is closed too."""
        if pair.master_closed:
            self._nodes.pop(pair.number, None)
            if not pair.slaves:
                self.pairs.pop(pair.number, None)

    def of_session(self, session: int) -> Pty | None:
        """The controlling terminal of a session, if it is one of these."""
        return next((one for one in self.pairs.values() if session and one.session == session), None)

    def open_controlling(self, flags: int, location: Location | None) -> OpenFile | None:
        """What /dev/tty is for the caller; None for the host's terminal. Raises LinuxError(ENXIO) without one."""
        pair = self.side.controlling()
        if pair is None:
            return None
        node = self._nodes.get(pair.number)
        if node is None:
            raise LinuxError(ENXIO)
        return pair.open_slave(node, flags, location)

    # /dev/pts

    def names(self) -> list[Entry]:
        """Its entries."""
        kind = d_type(S_IFCHR)
        slaves = [(str(number), _FIRST_INODE + number, kind) for number in sorted(self._nodes, reverse=True)]
        return [*slaves, ("ptmx", _PTMX_INODE, kind)]

    def find(self, name: str) -> Inode | None:
        """One of its entries."""
        if name == "ptmx":
            node = DeviceNode(
                DEVPTS_DEVICE, _PTMX_INODE, S_IFCHR | 0o666, makedev(5, 2), self.open_master, self.clock.realtime_ns()
            )
            node.mode = S_IFCHR  # ptmxmode=000: everybody opens /dev/ptmx instead
            return node
        return self._nodes.get(int(name)) if name.isdecimal() and str(int(name)) == name else None

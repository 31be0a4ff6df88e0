"""Pseudo-terminals: a program's terminal, and the master side that plays keyboard and screen for it.

Sources: drivers/tty/pty.c, tty_io.c, n_tty.c. What the kernel does in a work queue happens here at once.
"""

from __future__ import annotations

from errno import EIO, ESPIPE
from typing import TYPE_CHECKING, Final

from loadstone.errors import LinuxError
from loadstone.vfs.file import OpenFile, WouldBlock, total
from loadstone.vfs.flags import (
    O_NONBLOCK,
    POLLERR,
    POLLHUP,
    POLLIN,
    POLLOUT,
    POLLPRI,
    POLLRDNORM,
    POLLWRNORM,
)
from loadstone.vfs.line_discipline import LineDiscipline
from loadstone.vfs.pty_packets import DATA, FLUSH_READ, FLUSH_WRITE, Packets
from loadstone.vfs.regular import scatter
from loadstone.vfs.terminal_modes import CREAD, CS8, CSIZE, PARENB, Modes
from loadstone.vfs.terminal_output import TerminalOutput
from loadstone.wait import WaitQueue

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadstone.vfs.devpts import Terminals
    from loadstone.vfs.inode import Inode
    from loadstone.vfs.location import Location

READ_MOST: Final = 4095  # what the reader's line discipline holds; no read of a master gives more
FLIP_MOST: Final = 16384  # and what waits before it: a limit of 8 KiB, which the kernel counts after the fact
_ALL: Final = READ_MOST + FLIP_MOST
NO_SIZE: Final = bytes(8)
HUNG_UP: Final = POLLIN | POLLRDNORM | POLLOUT | POLLWRNORM | POLLERR | POLLHUP


class Pty:
    """One pair.

    Attributes:
        number: N of /dev/pts/N.
        locked: the other side cannot be opened until TIOCSPTLCK unlocks it.
        size: struct winsize, 8 bytes.
        session: the session whose controlling terminal it is; 0 for none.
        foreground: the process group that gets its signals; 0 for none.
        master_closed: nobody plays keyboard any more.
        slaves: the open files of the program's side, hung up or not.
        packets: packet mode of the master.
        left: every program has closed its side: the master reads EIO, until one opens it again.
    """

    __slots__ = (
        "_keys", "_settled", "discipline", "foreground", "left", "locked", "master_closed", "master_input",
        "master_room", "number", "output", "packets", "screen", "session", "size", "slave_input", "slave_room",
        "slaves", "terminals",
    )  # fmt: skip

    def __init__(self, terminals: Terminals, number: int) -> None:
        self.terminals = terminals
        self.number = number
        self.locked = True
        self.size = NO_SIZE
        self.session = self.foreground = 0
        self.master_closed = self.left = False
        self.slaves: list[SlaveFile] = []
        self.screen = bytearray()  # written by programs, not read by the master yet
        self._settled = _ALL  # of the screen's bytes, those that were there before the keys that are dealt with now
        self._keys = bytearray()  # written by the master; the line discipline has no room for it yet
        self.packets = Packets(lambda: self._notify(self.master_input, POLLIN))
        self.output = TerminalOutput(Modes(), self.show, self._room, self.packets.tell_flow)
        self.discipline = LineDiscipline(self.output, self._signal, self._drop_both)
        name = f"/dev/pts/{number}"
        self.slave_input = WaitQueue(f"input on {name}")
        self.slave_room = WaitQueue(f"room for output on {name}")
        self.master_input = WaitQueue(f"output of {name}")
        self.master_room = WaitQueue(f"room for input on {name}")

    def _notify(self, queue: WaitQueue, events: int = 0) -> None:
        """Make whoever waits on the queue run, and tell of `events`: POLL* bits, 0 for any change."""
        if queue.waiters or queue.listeners:
            self.terminals.wake(queue.wake(events=events))

    def _signal(self, number: int) -> None:
        if self.foreground:
            self.terminals.side.signal_group(self.foreground, number)

    # The screen

    def _room(self) -> int:
        return READ_MOST + FLIP_MOST - len(self.screen)

    def show(self, data: bytes) -> None:
        """Give the master something to read."""
        self.screen += data
        if self._settled == _ALL:  # else feed() tells of it
            self._notify(self.master_input, POLLIN | POLLRDNORM)

    def drop_output(self) -> None:
        """What the master's reader could not have got yet is lost (tty_driver_flush_buffer).

        Also what these keys have echoed so far: the kernel has not handed that over.
        """
        del self.screen[min(READ_MOST, self._settled) :]
        self._notify(self.slave_room, POLLOUT)
        self.packets.tell(FLUSH_WRITE)

    def _drop_both(self) -> None:
        """A signal key was typed; the line discipline throws away what was typed before."""
        self.drop_output()
        self.packets.tell(FLUSH_READ)

    def drop_screen(self) -> None:
        """Nothing that was written is read any more."""
        self.screen.clear()
        self._notify(self.slave_room, POLLOUT)

    def waiting_output(self) -> int:
        """How many bytes one read of the master can take (FIONREAD)."""
        return min(len(self.screen), READ_MOST)

    def take_output(self, count: int) -> bytes:
        """What the master reads."""
        data = bytes(self.screen[: min(count, READ_MOST)])
        del self.screen[: len(data)]
        self._notify(self.slave_room, POLLOUT)
        return data

    # The keyboard

    def type_keys(self, data: bytes) -> int:
        """What the master writes; the bytes taken."""
        done = min(len(data), self.key_room())
        self._keys += data[:done]
        self.feed()
        return done

    def key_room(self) -> int:
        """How many bytes the master may write now."""
        return FLIP_MOST - len(self._keys)

    def feed(self) -> None:
        """Hand what was typed to the line discipline, as far as it has room. Readers hear of it before the screen."""
        reach = self.discipline.reach()
        shown = self._settled = len(self.screen)
        while self._keys:
            room = self.discipline.room()
            if not room:
                break
            stopped = self.output.stopped
            part = bytes(self._keys[:room])
            del self._keys[: len(part)]
            self.discipline.receive(part)
            if stopped and not self.output.stopped:
                self._notify(self.slave_room, POLLOUT)
        self._settled = _ALL
        self._notify(self.master_room, POLLOUT)
        if self.discipline.reach() > reach:
            self._notify(self.slave_input, POLLIN | POLLRDNORM)
        if len(self.screen) > shown:
            self._notify(self.master_input, POLLIN | POLLRDNORM)

    def drop_input(self) -> None:
        """Throw away what was typed (TCFLSH)."""
        self.discipline.discard()
        self._keys.clear()
        self._notify(self.master_room, POLLOUT)
        self.packets.tell(FLUSH_READ)

    def drop_keys(self) -> None:
        """Throw away what was typed and has not reached the line discipline."""
        self._keys.clear()
        self._notify(self.master_room, POLLOUT)

    # Modes

    def set_modes(self, modes: Modes) -> None:
        """Take new modes; a pseudo-terminal always has 8 bits without parity."""
        modes.cflag = modes.cflag & ~(CSIZE | PARENB) | CS8 | CREAD
        self.packets.tell_modes(self.discipline.modes, modes)
        self.discipline.set_modes(modes)
        self.feed()
        self._notify(self.slave_input)
        self._notify(self.slave_room)

    def stop(self, stopped: bool) -> None:
        """TCXONC: hold output, or let it go on. What a key has stopped, holding takes over."""
        if stopped:
            self.output.stop(hold=True)
        elif self.output.held:
            self.output.start(held=True)  # echoes follow with what is written next
            self._notify(self.slave_room, POLLOUT)

    # Opening and closing

    def open_slave(self, inode: Inode, flags: int, location: Location | None) -> SlaveFile:
        """Open the program's side; EIO if it is locked or the master is gone."""
        if self.locked or self.master_closed:
            raise LinuxError(EIO)
        self.left = False
        return SlaveFile(inode, flags, location, self)

    def hang_up(self) -> None:
        """Every open file of the program's side is useless from now on (__tty_hangup); the session loses it."""
        for one in self.slaves:
            one.hung_up = True
        session, self.session, self.foreground = self.session, 0, 0
        self.discipline.discard()
        self.discipline.set_modes(Modes())
        self.packets.tell(FLUSH_READ | FLUSH_WRITE)
        if session:
            self.terminals.side.hang_up(session)
        self._notify(self.slave_input)
        self._notify(self.slave_room)

    def close_master(self) -> None:
        """The keyboard is pulled out."""
        self.master_closed = True
        self._keys.clear()
        self.screen.clear()
        self.hang_up()
        self.terminals.forget(self)

    def close_slave(self, file: SlaveFile) -> None:
        """One program less; after the last one, the master is told."""
        self.slaves.remove(file)
        if not self.slaves:
            self.left = True
            self._notify(self.master_input)
            self._notify(self.master_room)
            self.terminals.forget(self)


class MasterFile(OpenFile):
    """What opening /dev/ptmx gives."""

    __slots__ = ("tty",)

    asynchronous = True
    tty: Pty

    def __init__(self, inode: Inode, flags: int, location: Location | None, tty: Pty) -> None:
        super().__init__(inode, flags, location)
        self.tty = tty
        self.read_queue = tty.master_input
        self.write_queue = tty.master_room

    def read_into(self, pieces: Sequence[memoryview], offset: int | None = None) -> int:
        """What programs wrote; EIO when all of them have gone. In packet mode, what happened comes first."""
        self.demand_readable()
        if offset is not None:
            raise LinuxError(ESPIPE)
        count = total(pieces)
        if not count:
            return 0
        packets = self.tty.packets
        if packets.status:
            data = packets.take()
        elif self.tty.screen:
            data = DATA + self.tty.take_output(count - 1) if packets.on else self.tty.take_output(count)
        elif self.tty.left:
            raise LinuxError(EIO)
        else:
            raise WouldBlock(self.tty.master_input)
        scatter(pieces, memoryview(data))
        return len(data)

    def write_from(self, pieces: Sequence[memoryview], offset: int | None = None) -> int:
        """Type."""
        self.demand_writable()
        if offset is not None:
            raise LinuxError(ESPIPE)
        if not total(pieces):
            return 0
        done = self.tty.type_keys(b"".join(pieces))
        if not done:
            raise WouldBlock(self.tty.master_room)
        return done

    def available(self) -> int | None:
        """What one read can give; None so that a read asks the file itself."""
        packets = self.tty.packets
        if packets.status:
            return 1
        waiting = self.tty.waiting_output()
        return waiting + packets.on if waiting else None

    def ready(self) -> int:
        """Source: n_tty_poll()."""
        bits = POLLIN | POLLRDNORM if self.tty.screen else 0
        if self.tty.packets.status:
            bits |= POLLPRI | POLLIN | POLLRDNORM
        if self.tty.key_room() > 0:
            bits |= POLLOUT | POLLWRNORM
        return bits | POLLHUP if self.tty.left else bits

    def release(self) -> None:
        """The program is hung up."""
        self.tty.close_master()


class TimedWait(WouldBlock):
    """A read that waits no longer than VTIME: from when it began, or from the last byte."""

    def __init__(self, file: SlaveFile, deadline: int, have: int) -> None:
        super().__init__(file.tty.slave_input)
        self._file = file
        self.deadline = deadline
        self._have = have

    def follows(self, earlier: WouldBlock) -> None:
        """It is the same wait as `earlier`, unless something was typed since."""
        if isinstance(earlier, TimedWait) and earlier._have == self._have:
            self.deadline = earlier.deadline

    def expire(self) -> None:
        """The next read takes what there is."""
        self._file.expired = True


class SlaveFile(OpenFile):
    """A program's terminal, /dev/pts/N."""

    __slots__ = ("expired", "hung_up", "tty")

    terminal = True
    asynchronous = True
    tty: Pty

    def __init__(self, inode: Inode, flags: int, location: Location | None, tty: Pty) -> None:
        super().__init__(inode, flags, location)
        self.tty = tty
        self.hung_up = False
        self.expired = False  # VTIME has passed: the read that follows waits no longer
        self.read_queue = tty.slave_input
        self.write_queue = tty.slave_room
        tty.slaves.append(self)

    def read_into(self, pieces: Sequence[memoryview], offset: int | None = None) -> int:
        """A line, or what VMIN and VTIME say; 0 at the end of file and after a hang-up."""
        self.demand_readable()
        if offset is not None:
            raise LinuxError(ESPIPE)
        expired, self.expired = self.expired, False
        count = total(pieces)
        if self.hung_up or not count:
            return 0
        if not self._may_take(count, expired):
            return 0
        data = self.tty.discipline.take(count)
        scatter(pieces, memoryview(data))
        self.tty.feed()
        return len(data)

    def _may_take(self, count: int, expired: bool) -> bool:
        """Whether there is something to take, False if a read gives nothing; else WouldBlock (n_tty_read)."""
        discipline = self.tty.discipline
        if discipline.canonical:
            if not discipline.has_input():
                raise WouldBlock(self.read_queue)
            return True
        modes, have = discipline.modes, len(discipline.lines.typed)
        minimum, time = modes.minimum, modes.time_ns
        if have >= (min(minimum, count) or 1) or (have and (expired or self.flags & O_NONBLOCK)):
            return True
        if not minimum and (expired or not time):
            return False
        if time and (have or not minimum):
            raise TimedWait(self, self.tty.terminals.clock.monotonic_ns() + time, have)
        raise WouldBlock(self.read_queue)

    def write_from(self, pieces: Sequence[memoryview], offset: int | None = None) -> int:
        """Show on the master's screen; EIO after a hang-up."""
        self.demand_writable()
        if offset is not None:
            raise LinuxError(ESPIPE)
        if self.hung_up or self.tty.master_closed:
            raise LinuxError(EIO)
        if not total(pieces):
            return 0
        done = self.tty.output.write(b"".join(pieces))
        if not done:
            raise WouldBlock(self.write_queue)
        return done

    def ready(self) -> int:
        """Source: n_tty_poll(), hung_up_tty_poll()."""
        if self.hung_up:
            return HUNG_UP
        discipline = self.tty.discipline
        modes = discipline.modes
        minimum = modes.minimum if not modes.time_ns and modes.minimum else 1
        bits = POLLIN | POLLRDNORM if discipline.has_input(minimum) else 0
        return bits | POLLOUT | POLLWRNORM if self.tty.output.free() > 0 else bits

    def release(self) -> None:
        """One open file less."""
        self.tty.close_slave(self)

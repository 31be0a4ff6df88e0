"""Pseudo-terminals beside the kernel's own: the same keys, modes and operations, the same bytes and answers."""

from __future__ import annotations

import fcntl
import functools
import os
import random
import select
import struct
import termios
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from loadstone.errors import LinuxError
from loadstone.vfs import terminal_modes as bits
from loadstone.vfs.assemble import assemble
from loadstone.vfs.file import WouldBlock
from loadstone.vfs.flags import O_NONBLOCK, O_RDWR
from loadstone.vfs.pty import MasterFile, SlaveFile
from loadstone.vfs.terminal_modes import Modes

TERMIOS = struct.Struct("<4IB19s")
PATIENCE = 5.0  # seconds that the kernel's work queue has for what is done at once here

INPUT = [bits.PARMRK, bits.ISTRIP, bits.INLCR, bits.IGNCR, bits.ICRNL, bits.IUCLC, bits.IXON, bits.IXANY, bits.IUTF8]
OUTPUT = [bits.OPOST, bits.OLCUC, bits.ONLCR, bits.OCRNL, bits.ONOCR, bits.ONLRET, bits.XTABS]
LOCAL = [
    bits.ISIG, bits.ICANON, bits.ECHO, bits.ECHOE, bits.ECHOK, bits.ECHONL, bits.NOFLSH, bits.ECHOCTL, bits.ECHOPRT,
    bits.ECHOKE, bits.IEXTEN,
]  # fmt: skip
KEYS = (
    b"abcXYZ019 __\t\t\n\n\r\x03\x04\x04\x08\x0f\x11\x11\x12\x13\x15\x16\x17\x1a\x1c\x7f\x7f\x7f"
    b"\0\xc3\xa9\xe2\x82\xac\xff"
)


class Kernel:
    """The host's pair."""

    def __init__(self) -> None:
        self.master = os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        fcntl.ioctl(self.master, 0x40045431, struct.pack("<i", 0))
        self.slave = -1
        self.open()

    def open(self) -> None:
        number = int.from_bytes(fcntl.ioctl(self.master, 0x80045430, bytes(4)), "little")
        self.slave = os.open(f"/dev/pts/{number}", os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)

    def close(self) -> None:
        os.close(self.slave)
        self.slave = -1

    def modes(self, data: bytes) -> bytes:
        fcntl.ioctl(self.slave, termios.TCSETS, data)
        return fcntl.ioctl(self.slave, termios.TCGETS, bytes(TERMIOS.size))

    def write(self, side: str, data: bytes) -> int | None:
        try:
            return os.write(getattr(self, side), data)
        except BlockingIOError:
            return None

    def read(self, side: str, count: int) -> bytes | None:
        try:
            return os.read(getattr(self, side), count)
        except BlockingIOError:
            return None

    def ready(self, side: str) -> int:
        one = select.poll()
        one.register(getattr(self, side), 0x7FFF)
        return dict(one.poll(0)).get(getattr(self, side), 0)

    def waiting(self, side: str) -> int:
        return int.from_bytes(fcntl.ioctl(getattr(self, side), termios.FIONREAD, bytes(4)), "little")

    def flush(self, which: int) -> None:
        termios.tcflush(self.slave, which)

    def flow(self, what: int) -> None:
        termios.tcflow(self.slave, what)

    def packets(self, on: int) -> int:
        fcntl.ioctl(self.master, termios.TIOCPKT, struct.pack("<i", on))
        return int.from_bytes(fcntl.ioctl(self.master, 0x80045438, bytes(4)), "little")


class Ours:
    """A pair of a namespace."""

    def __init__(self) -> None:
        self.vfs = assemble(None)
        master = self.vfs.open("/dev/ptmx", O_RDWR | O_NONBLOCK)
        assert isinstance(master, MasterFile)
        self.master, self.pair = master, master.tty
        self.pair.locked = False
        self.open()

    def open(self) -> None:
        slave = self.vfs.open(f"/dev/pts/{self.pair.number}", O_RDWR | O_NONBLOCK)
        assert isinstance(slave, SlaveFile)
        slave.hold()
        self.slave = slave

    def close(self) -> None:
        self.slave.close()

    def modes(self, data: bytes) -> bytes:
        modes = Modes()
        modes.iflag, modes.oflag, modes.cflag, modes.lflag, _, modes.cc = TERMIOS.unpack(data)
        self.pair.set_modes(modes)
        now = self.pair.discipline.modes
        return TERMIOS.pack(now.iflag, now.oflag, now.cflag, now.lflag, now.line, now.cc)

    def write(self, side: str, data: bytes) -> int | None:
        try:
            return getattr(self, side).write_from([memoryview(data)])
        except WouldBlock:
            return None

    def read(self, side: str, count: int) -> bytes | None:
        data = bytearray(count)
        try:
            return bytes(data[: getattr(self, side).read_into([memoryview(data)])])
        except WouldBlock:
            return None

    def ready(self, side: str) -> int:
        return getattr(self, side).ready()

    def waiting(self, side: str) -> int:
        return self.pair.waiting_output() if side == "master" else self.pair.discipline.available()

    def flush(self, which: int) -> None:
        if which != termios.TCOFLUSH:
            self.pair.drop_input()
        if which != termios.TCIFLUSH:
            self.pair.drop_output()

    def flow(self, what: int) -> None:
        self.pair.stop(what == termios.TCOOFF)

    def packets(self, on: int) -> int:
        self.pair.packets.switch(bool(on))
        return int(self.pair.packets.on)


@contextmanager
def both_sides() -> Iterator[tuple[Kernel, Ours]]:
    kernel = Kernel()
    try:
        yield kernel, Ours()
    finally:
        for fd in (kernel.slave, kernel.master):
            if fd >= 0:
                os.close(fd)


@pytest.fixture
def sides() -> Iterator[tuple[Kernel, Ours]]:
    with both_sides() as pair:
        yield pair


def attempt(action: Callable[[], Any]) -> Any:
    try:
        return action()
    except (LinuxError, OSError) as error:
        return f"E{error.errno}"


def settle(kernel: Kernel, ours: Ours, open_sides: Sequence[str] = ("master", "slave")) -> None:
    """Wait until the kernel's work queue has done its part, which shows in what can be read."""
    end = time.monotonic() + PATIENCE
    while any(
        getattr(kernel, name)(side) != getattr(ours, name)(side) for side in open_sides for name in ("waiting", "ready")
    ):
        if time.monotonic() > end:
            break
        time.sleep(0.0002)


def some_modes(pick: random.Random) -> bytes:
    """The usual modes with some bits the other way, or any."""
    modes = Modes()
    for name, choices in (("iflag", INPUT), ("oflag", OUTPUT), ("lflag", LOCAL)):
        word = getattr(modes, name)
        for bit in choices:
            if pick.random() < 0.2:
                word ^= bit
        setattr(modes, name, word)
    cc = bytearray(modes.cc)
    cc[bits.VMIN] = pick.choice((0, 1, 1, 3))
    if pick.random() < 0.2:
        cc[bits.VEOL] = ord("Z")
    return TERMIOS.pack(modes.iflag, modes.oflag, modes.cflag, modes.lflag, 0, bytes(cc))


def some_step(pick: random.Random) -> tuple[str, ...]:
    text = bytes(pick.choice(KEYS) for _ in range(pick.choice((1, 2, 5, 12))))
    side = pick.choice(("master", "slave"))
    return pick.choices(
        (
            ("write", "master", text), ("write", "slave", text),
            ("read", side, pick.choice((1, 3, 5, 64, 5000))), ("ready", side), ("waiting", side),
            ("modes", some_modes(pick)), ("flush", pick.randrange(3)), ("flow", pick.randrange(2)),
        ),
        (12, 4, 8, 4, 3, 1, 0.3, 0.5),
    )[0]  # fmt: skip


def first_difference(seed: int, packets: bool, kernel: Kernel, ours: Ours) -> str:
    """Where the two sides part on the steps of this seed, with what came before it; empty if they do not."""
    pick = random.Random(seed)
    done = []
    for number in range(250):
        name, *arguments = step = some_step(pick)
        if packets and number % 50 == 0:
            step, name, arguments = ("packets", "on"), "packets", [number != 150]
        theirs = attempt(functools.partial(getattr(kernel, name), *arguments))
        mine = attempt(functools.partial(getattr(ours, name), *arguments))
        settle(kernel, ours)
        if packets and name == "write":
            time.sleep(0.001)  # a status that joins another one does not show in what settle() looks at
        done.append(f"{step} -> {theirs}")
        if mine != theirs:
            return "\n".join((*done[-25:], f"here {mine}"))
    return ""


@pytest.mark.parametrize("packets", [False, True])
@pytest.mark.parametrize("seed", range(12))
def test_terminal_is_the_kernels(seed: int, packets: bool) -> None:
    """Every byte and answer of 250 steps; three tries, because on a busy host the kernel's work queue comes late."""
    for _ in range(3):
        with both_sides() as (kernel, ours):
            difference = first_difference(seed, packets, kernel, ours)
        if not difference:
            return
    pytest.fail(difference)


def test_a_line_that_is_too_long_loses_what_follows(sides: tuple[Kernel, Ours]) -> None:
    found = []
    for side in sides:
        side.modes(TERMIOS.pack(0, 0, 0, bits.ICANON, 0, Modes().cc))
        for _ in range(60):
            side.write("master", b"0123456789" * 10)
        side.write("master", b"end\n")
        while not side.waiting("slave"):  # the kernel's work queue has not come to the end of the line
            time.sleep(0.01)
        found.append((side.waiting("slave"), side.read("slave", 10000), side.read("slave", 10)))
    assert found[0] == found[1] and found[0][0] == 4096


def test_who_closes_what(sides: tuple[Kernel, Ours]) -> None:
    """The last program leaves, another comes, the keyboard is pulled out."""
    steps: list[tuple[Any, ...]] = [
        ("write", "master", b"in\n"), ("close",), ("ready", "master"), ("read", "master", 9), ("read", "master", 9),
        ("write", "master", b"later\n"), ("open",), ("ready", "master"), ("read", "master", 9), ("read", "master", 9),
        ("ready", "slave"), ("read", "slave", 9), ("read", "slave", 9), ("read", "slave", 9),
    ]  # fmt: skip
    answers: list[list[Any]] = [[], []]
    for name, *arguments in steps:
        for side, seen in zip(sides, answers, strict=True):
            seen.append(attempt(functools.partial(getattr(side, name), *arguments)))
        settle(*sides, ("master", "slave") if sides[0].slave >= 0 else ("master",))
    for side, seen in zip(sides, answers, strict=True):
        if isinstance(side, Kernel):
            os.close(side.master)
            side.master = -1
        else:
            side.master.hold()
            side.master.close()
        seen += [
            side.ready("slave"),
            attempt(functools.partial(side.read, "slave", 5)),
            attempt(functools.partial(side.write, "slave", b"x")),
        ]
    assert answers[0] == answers[1]


def test_names_come_and_go() -> None:
    vfs = assemble(None)
    masters = [vfs.open("/dev/ptmx", O_RDWR) for _ in range(3)]
    for one in masters:
        one.hold()
    names = {name for name, *_ in vfs.open("/dev/pts", 0).next_entries()}
    assert names == {".", "..", "ptmx", "0", "1", "2"}
    with pytest.raises(LinuxError):  # it is locked
        vfs.open("/dev/pts/1", O_RDWR)
    masters[1].close()
    assert {name for name, *_ in vfs.open("/dev/pts", 0).next_entries()} == {".", "..", "ptmx", "0", "2"}
    again = vfs.open("/dev/ptmx", O_RDWR)
    assert isinstance(again, MasterFile) and again.tty.number == 1

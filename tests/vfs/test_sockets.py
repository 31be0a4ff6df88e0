"""UNIX sockets, beside the kernel's own: random calls connected and not, what fits, who is told what."""

from __future__ import annotations

import array
import fcntl
import os
import random
import select
import socket
import termios
from collections.abc import Iterator
from typing import Any

import pytest

from loadstone.clock import Clock
from loadstone.errors import LinuxError
from loadstone.vfs.assemble import assemble
from loadstone.vfs.file import OpenFile, WouldBlock
from loadstone.vfs.socket_messages import Extra, Who
from loadstone.vfs.socket_space import SocketFile, SocketSpace
from loadstone.vfs.sockets import Socket

KINDS = [socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET]
NAMES = tuple(b"\0loadstone-%d-%d" % (os.getpid(), number) for number in range(3))
SIZES = (0, 1, 10, 376, 377, 1728, 1729, 3776, 3777, 8000, 16064, 16065, 36544, 36545, 65536, 106432, 200000, 250000)
WANTED = (1, 5, 400, 4096, 20000, 70000, 300000)


class Native:
    """The host's sockets."""

    def __init__(self, kind: int) -> None:
        self.kind = kind
        self.ends: list[socket.socket] = []

    def do(self, name: str, *args: Any) -> Any:
        try:
            return getattr(self, name)(*args)
        except OSError as error:
            return -(error.errno or 0)

    def _add(self, *ends: socket.socket) -> int:
        for end in ends:
            end.setblocking(False)
            self.ends.append(end)
        return len(self.ends)

    def pair(self) -> int:
        return self._add(*socket.socketpair(socket.AF_UNIX, self.kind))

    def new(self) -> int:
        return self._add(socket.socket(socket.AF_UNIX, self.kind))

    def bind(self, which: int, name: bytes) -> None:
        self.ends[which].bind(name)

    def listen(self, which: int, backlog: int) -> None:
        self.ends[which].listen(backlog)

    def connect(self, which: int, name: bytes) -> None:
        self.ends[which].connect(name)

    def accept(self, which: int) -> int:
        return self._add(self.ends[which].accept()[0])

    def send(self, which: int, data: bytes) -> int:
        return self.ends[which].send(data, socket.MSG_NOSIGNAL)

    def send_to(self, which: int, data: bytes, name: bytes) -> int:
        return self.ends[which].sendto(data, name)

    def receive(self, which: int, size: int, peek: bool) -> bytes:
        return self.ends[which].recv(size, socket.MSG_PEEK if peek else 0)

    def shutdown(self, which: int, how: int) -> None:
        self.ends[which].shutdown(how)

    def limit(self, which: int, size: int) -> int:
        self.ends[which].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, size)
        return self.ends[which].getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)

    def error(self, which: int) -> int:
        return self.ends[which].getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)

    def close(self, which: int) -> None:
        self.ends[which].close()

    def state(self, which: int) -> Any:
        end = self.ends[which]
        if end.fileno() < 0:
            return None
        poller = select.poll()
        poller.register(end, 0x1 | 0x4 | 0x2000)
        bits = dict(poller.poll(0)).get(end.fileno(), 0) & 0x201D
        counts = []
        for request in (termios.FIONREAD, termios.TIOCOUTQ):
            value = array.array("i", [0])
            try:
                fcntl.ioctl(end, request, value)
            except OSError as error:
                value[0] = -(error.errno or 0)
            counts.append(value[0])
        return bits, counts


class Ours:
    """The machine's."""

    def __init__(self, kind: int) -> None:
        self.kind = kind
        self.space = SocketSpace(lambda woken: None, Clock())
        self.ends: list[SocketFile | None] = []

    def do(self, name: str, *args: Any) -> Any:
        try:
            return getattr(self, name)(*args)
        except WouldBlock:
            return -11
        except LinuxError as error:
            return -error.errno

    def _add(self, *ends: Socket) -> int:
        for end in ends:
            file = SocketFile(end, 0)
            file.hold()
            self.ends.append(file)
        return len(self.ends)

    def _socket(self, which: int) -> Socket:
        file = self.ends[which]
        assert file is not None
        return file.socket

    def pair(self) -> int:
        one, two = (self.space.make(self.kind, Who()) for _ in range(2))
        one.pair(two)
        return self._add(one, two)

    def new(self) -> int:
        return self._add(self.space.make(self.kind, Who()))

    def bind(self, which: int, name: bytes) -> None:
        self.space.bind_abstract(self._socket(which), name)

    def listen(self, which: int, backlog: int) -> None:
        self._socket(which).listen(backlog, Who())

    def connect(self, which: int, name: bytes) -> None:
        self._socket(which).connect(self.space.at_name(name), Who())

    def accept(self, which: int) -> int:
        return self._add(self._socket(which).accept())

    def send(self, which: int, data: bytes) -> int:
        return self._socket(which).send([memoryview(data)])

    def send_to(self, which: int, data: bytes, name: bytes) -> int:
        return self._socket(which).send([memoryview(data)], Extra(), lambda: self.space.at_name(name))

    def receive(self, which: int, size: int, peek: bool) -> bytes:
        data = bytearray(size)
        return bytes(data[: self._socket(which).receive([memoryview(data)], peek).copied])

    def shutdown(self, which: int, how: int) -> None:
        self._socket(which).shutdown(how + 1)

    def limit(self, which: int, size: int) -> int:
        one = self._socket(which)
        one.send_limit = max(2 * size, 4608)
        return one.send_limit

    def error(self, which: int) -> int:
        return self._socket(which).take_error()

    def close(self, which: int) -> None:
        file = self.ends[which]
        if file is not None:
            file.close()
            self.ends[which] = None

    def state(self, which: int) -> Any:
        file = self.ends[which]
        if file is None:
            return None
        try:
            there = file.available()
        except LinuxError as error:
            there = -error.errno
        return file.ready() & 0x201D, [there, file.socket.charged]


def actions(pick: random.Random, kind: int, count: int) -> Iterator[tuple[Any, ...]]:
    """Calls on sockets 0..count-1."""
    names = ["send"] * 6 + ["receive"] * 6 + ["shutdown", "close", "limit", "error", "connect", "accept", "accept"]
    while True:
        name = pick.choice([*names, "send_to", "send_to"] if kind == socket.SOCK_DGRAM else names)
        which = pick.randrange(count)
        if name == "send":
            yield name, which, pick.randbytes(pick.choice(SIZES))
        elif name == "send_to":
            yield name, which, pick.randbytes(pick.choice(SIZES)), pick.choice(NAMES)
        elif name == "receive":
            yield name, which, pick.choice(WANTED), pick.random() < 0.2
        elif name == "shutdown":
            if pick.random() < 0.3:
                yield name, which, pick.randrange(3)
        elif name == "close":
            if pick.random() < 0.2:
                yield name, which
        elif name == "limit":
            yield name, which, pick.choice((2000, 10000, 100000))
        elif name == "connect":
            yield name, which, pick.choice(NAMES)
        else:
            yield name, which


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("kind", KINDS)
def test_sockets_are_the_kernels(kind: int, seed: int) -> None:
    pick = random.Random(f"{kind} {seed}")
    theirs, ours = Native(kind), Ours(kind)
    setup: list[tuple[Any, ...]] = [
        ("pair",),
        ("new",),
        ("new",),
        ("new",),
        ("bind", 2, NAMES[0]),
        ("bind", 3, NAMES[1]),
    ]
    setup += [("bind", 2, NAMES[2]), ("listen", 2, 1), ("listen", 4, 1), ("connect", 4, NAMES[0]), ("accept", 2)]
    source = actions(pick, kind, 5)
    try:
        _compare(theirs, ours, setup, source)
    finally:
        for end in theirs.ends:
            end.close()


def _compare(theirs: Native, ours: Ours, setup: list[tuple[Any, ...]], source: Iterator[tuple[Any, ...]]) -> None:
    for step in range(300):
        action = setup[step] if step < len(setup) else next(source)
        if step >= len(setup) and theirs.ends[action[1]].fileno() < 0:
            continue
        wanted, got = theirs.do(*action), ours.do(*action)
        shown = tuple(len(one) if isinstance(one, bytes) and len(one) > 20 else one for one in action)
        assert got == wanted, f"step {step}: {shown}"
        for which in range(len(theirs.ends)):
            assert ours.state(which) == theirs.state(which), f"step {step}: socket {which} after {shown}"


def test_files_in_flight_are_closed_with_the_socket() -> None:
    vfs = assemble(None)
    ours = Ours(socket.SOCK_STREAM)
    ours.pair()
    file: OpenFile = vfs.open("/dev/null", os.O_RDWR)
    file.hold()
    one, two = (ours._socket(which) for which in range(2))
    for _ in range(3):
        one.send([memoryview(b"x")], Extra((file,)))
    assert file.references == 4
    got = two.receive([memoryview(bytearray(10))], peek=True)
    assert (got.copied, file.references) == (1, 5)
    got.extra.rights[0].close()
    got = two.receive([memoryview(bytearray(10))])
    assert (got.copied, got.extra.rights, file.references) == (1, (file,), 4)
    got.extra.rights[0].close()
    ours.close(1)
    assert file.references == 1

"""System calls with arguments that nobody in their right mind would give: typed by the handlers' annotations, seeded.

The calls go straight to the dispatcher of a whole machine, on the task of a program that has not run; a call that waits
is woken, timed out or interrupted at random. Purely random numbers would only ever meet the first check of a call, so
most arguments are nearly right: open descriptors, readable addresses, plausible sizes and flags.
"""

from __future__ import annotations

import random
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from loadstone.api import Machine
from loadstone.errors import LinuxError, OutOfFrames
from loadstone.linux import abi
from loadstone.linux.syscalls.dispatch import Pending
from loadstone.memory.flags import MAP_ANONYMOUS, MAP_FIXED, MAP_PRIVATE
from loadstone.memory.user import copy_out
from loadstone.wait import TIMED_OUT, WOKEN

ARENA, ARENA_SIZE = 0x1000_0000, 4 * 4096
SLOTS = range(0, 0x600, 0x100)  # where in the arena pointers lead
LIFETIME = 150  # calls until a fresh process: most soon have no rights, no descriptors and no memory left
PATIENCE = 100  # seconds that one call may take

_REGISTERS = ("rax", "rdi", "rsi", "rdx", "r10", "r8", "r9")
_MASK = (1 << 64) - 1
_BOUNDARIES = (
    *(0, 1, 2, 255, 256, 1024, 4095, 4096, 4097, 65536, 1 << 20, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 32),
    *((1 << 47) - 4096, (1 << 47) - 1, 1 << 47, (1 << 63) - 1, 1 << 63, -1, -2, -100, -4095, -4096),
)
_BAD_POINTERS = (
    *(0, ARENA + ARENA_SIZE - 8, ARENA + ARENA_SIZE - 1, ARENA + ARENA_SIZE, 0x7000_0000, 0xDEAD_0000_0000_0000, -8),
    (1 << 47) - 4096,
)
_PLACES = (ARENA, ARENA + 4096, 0, ARENA + ARENA_SIZE, 0x2000_0000, 0x2000_1000, (1 << 47) - 8192)
_SIZES = (0, 1, 2, 3, 4, 7, 8, 16, 20, 48, 64, 100, 128, 256, 4096, ARENA_SIZE)
_FLAGS = (
    *(0o100 | 2, 0o1102, 0o20200000 | 2, 0o2000000, 0x22, 0x32, 1 << 13, 1 << 14, 1 << 16, 1 << 20, 1 << 31),
    *(32, 33, 34, 64, 0x80, 0x100, 0x101, 0x200, 0x400, 0x800, 0x1000, 0x1100),
)
_OPEN_FLAGS = (0, 0o100, 0o300, 0o1000, 0o2000, 0o4000, 0o200000, 0o20200000, 0o10000000, 0o400000, 0o2000000)
_MAP_FLAGS = (0, 0x20, 0x10, 0x30, 0x100000, 0x120, 0x8020, 0x4020, 0x2020, 0x100020)
_IOCTLS = (
    *range(0x5401, 0x5430),
    *(1, 2, 0x40049409, 0x4020940D, 0xC0189436, 0x80086601, 0x40086602, 0xC020660B, 0x801C581F, 0x5450, 0x5451),
    *(0x5452, 0x5460, 0x80045430, 0x802C542A),
)
_PATHS = (
    *(b"", b"/", b".", b"..", b"a", b"a/b", b"/tmp", b"/tmp/a", b"/tmp/a/", b"/tmp/d", b"/tmp/d/e", b"/tmp/l", b"\xff"),
    *(b"/dev", b"/dev/null", b"/dev/zero", b"/dev/full", b"/dev/urandom", b"/dev/stdin", b"/dev/pts", b"/etc/passwd"),
    *(b"/proc/self/fd/3", b"/proc/self/maps", b"/proc/self/fd", b"/proc/self/exe", b"/proc/self/mem", b"/sys"),
    *(b"/proc/self/root/tmp/a", b"/proc/1/status", b"/proc/self/environ", b"/proc/self/task", b"/proc/self/cwd"),
    *(b"/proc/self/fdinfo/4", b"/proc/stat", b"/bin/true", b"x" * 250, b"/tmp/" + b"d/" * 50, b"user.name"),
)
_WITHOUT_RETURN = ("exit", "exit_group")


class Victim:
    """A process whose calls we make for it, with an arena and an open file of every kind."""

    def __init__(self, pick: random.Random, *, traced: bool) -> None:
        self.pick = pick
        self.machine = Machine(engine="unicorn", deterministic=True, memory=64 << 20, keep_faults=False)
        self.process = self.machine.spawn("/bin/true", ["true"], {"A": "b"}, cwd="/tmp").inner
        self.task = self.process.tasks[0]
        self.calls = self.machine.linux.calls
        self.numbers = abi.load().numbers
        self.process.space.map(ARENA, ARENA_SIZE, 3, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED)
        if traced:
            self.machine.events.subscribe(lambda event: None)
        self._open_files()

    def _open_files(self) -> None:
        for fd in range(3):  # ours, which nobody may write to
            self.finish(self.start("close", fd))
        files = (
            (b"/dev/zero", 2),
            (b"/etc/passwd", 0),
            (b"/tmp", 0o200000),
            (b"/tmp/hostile", 0o102),
            (b"/tmp", 0o10000000),
        )
        for path, flags in (*files, (b"/proc/self/maps", 0), (b"/dev/null", 2)):
            copy_out(self.process.space, ARENA, path + b"\0")
            self.finish(self.start("open", ARENA, flags, 0o644))
        for name, *arguments in (("pipe", ARENA), ("pipe2", ARENA, 0o4000), ("eventfd2", 3, 0), ("epoll_create1", 0)):
            self.finish(self.start(str(name), *map(int, arguments)))
        self.finish(self.start("memfd_create", ARENA + 4096, 0))

    def start(self, name: str, *arguments: int) -> Pending | None:
        """Begin a call, as the scheduler does after a trap."""
        self.machine.kernel.scheduler.current = self.task
        # A hostile sigreturn may have set AC, which ends a machine on the Unicorn core: another test's business.
        self.task.context.write("eflags", 0x202)
        for register, value in zip(_REGISTERS, (self.numbers[name], *arguments, *[0] * 6), strict=False):
            self.task.context.write(register, value & _MASK)
        return self.calls.dispatch(self.task)

    def finish(self, pending: Pending | None) -> None:
        """What becomes of a call that waits: the time is up, it is woken, a signal comes, or the task dies."""
        clock = self.machine.kernel.clock
        for _ in range(50):
            if pending is None:
                return
            chance, deadline = self.pick.random(), pending.wait.deadline
            if deadline is not None and chance < 0.6:
                clock.sleep_until(deadline)
                pending = self.calls.resume(self.task, pending, TIMED_OUT)
            elif chance < 0.3:
                pending = self.calls.resume(self.task, pending, WOKEN)
            else:
                pending = self.calls.interrupt(self.task, pending)
        if pending is not None:
            pending.close()

    def attack(self, name: str) -> None:
        """Call `name` with hostile arguments."""
        for slot in SLOTS:
            self._fill(ARENA + slot)
        self.finish(self.start(name, *[self._argument(kind, what) for what, kind in self._parameters(name)]))
        if self.task.signals.attention and self.process.status is None and self.pick.random() < 0.5:
            self.machine.linux.before_user(self.task)

    def _parameters(self, name: str) -> list[tuple[str, str]]:
        function = self.calls.registry.row(self.numbers[name]).function
        if function is None:
            return [("first", "Int"), ("second", "Address")]
        found = {what: str(kind) for what, kind in function.__annotations__.items() if what != "return"}
        return list(found.items())[1:]

    def _fill(self, address: int) -> None:
        """Something in memory that a pointer may lead to: a path, words, numbers, noise."""
        pick = self.pick
        chance = pick.random()
        if chance < 0.4:
            data = pick.choice(_PATHS) + b"\0"
        elif chance < 0.6:
            words = [self._pointer() if pick.random() < 0.5 else pick.choice(_BOUNDARIES) for _ in range(30)]
            data = b"".join((word & _MASK).to_bytes(8, "little") for word in words)
        elif chance < 0.7:
            data = b"".join(pick.choice((0, 1, 3, 100, 4096, 999_999_999)).to_bytes(8, "little") for _ in range(30))
        elif chance < 0.85:
            numbers = (*range(16), 0x80, 0xFFFF_FFFF, 1 << 31, 0x1998_0330, 0x2008_0522)
            data = b"".join(pick.choice(numbers).to_bytes(4, "little") for _ in range(60))
        else:
            data = pick.randbytes(256) if chance < 0.95 else bytes(256)
        with suppress(LinuxError):  # the arena may be gone by now, or not to be written
            copy_out(self.process.space, address, data)

    def _pointer(self) -> int:
        pick = self.pick
        return ARENA + pick.choice(SLOTS) if pick.random() < 0.85 else pick.choice(_BAD_POINTERS)

    def _argument(self, kind: str, what: str) -> int:
        pick = self.pick
        chance = pick.random()
        if chance < 0.06:
            return pick.choice(_BOUNDARIES) if chance < 0.05 else pick.getrandbits(64)
        if kind in ("Fd", "DirFd"):
            return pick.randrange(16) if chance < 0.9 else pick.choice((-100, -1, 1 << 31, 1000))
        if kind == "Size" and what == "size" and chance < 0.5:
            return 8  # what the kernel wants of a signal mask
        if kind in ("Size", "ULong", "Offset", "Long", "UInt", "Int"):
            return pick.choice(_SIZES if chance < 0.85 else _BOUNDARIES)
        if kind == "Address" and what in ("address", "start", "old_address", "new_address"):
            return pick.choice(_PLACES)
        if kind in ("Address", "Path", "Strings", "Environment", "PollFds") or kind.startswith(("In", "Out")):
            return self._pointer()
        if kind == "Pid":
            return pick.choice((0, -1, 1, self.process.pid, self.process.pid, self.process.pid + 1))
        return self._flags(kind, chance)

    def _flags(self, kind: str, chance: float) -> int:
        pick = self.pick
        if kind == "IoctlRequest":
            return pick.choice(_IOCTLS)
        if kind == "FcntlCommand":
            return pick.choice((*range(40), *range(1024, 1039)))
        if kind == "OpenFlags":
            return pick.choice((0, 1, 2)) | pick.choice(_OPEN_FLAGS)
        if kind == "MapFlags":
            return pick.choice((1, 2, 3)) | pick.choice(_MAP_FLAGS)
        return 0 if chance < 0.4 else pick.randrange(20) if chance < 0.7 else pick.choice(_FLAGS)


@contextmanager
def _patience(what: str) -> Iterator[None]:
    """Fail when it takes too long."""

    def lose(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"{what} does not come back")

    before = signal.signal(signal.SIGALRM, lose)
    signal.setitimer(signal.ITIMER_REAL, PATIENCE)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def attack(seed: int, rounds: int, *, traced: bool) -> int:
    """Make every call `rounds` times in a random order; how many were made. Any exception of Python's comes through."""
    pick = random.Random(seed)
    names = [name for name in abi.load().numbers if name not in _WITHOUT_RETURN] * rounds
    pick.shuffle(names)
    victim = Victim(pick, traced=traced)
    try:
        for number, name in enumerate(names):
            if number % LIFETIME == LIFETIME - 1 or victim.process.status is not None:
                victim.machine.close()
                victim = Victim(pick, traced=traced)
            with _patience(f"{name}, call {number} of seed {seed}"):
                try:
                    victim.attack(name)
                except OutOfFrames as error:  # what the scheduler does with it
                    victim.machine.linux.out_of_frames(victim.task, str(error))
    finally:
        victim.machine.close()
    return len(names)

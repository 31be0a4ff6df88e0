"""The same system calls on the real kernel and on ours: results, errnos and what is left in memory must agree.

Both sides have one page-aligned arena at the same address; a call's arguments may point into it. The native side runs
in a forked child, through libc's syscall(); ours runs the dispatcher on a task without a CPU.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import resource
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple

from loadstone.clock import Clock
from loadstone.events import Events
from loadstone.kernel.kernel import Kernel, MachineOptions
from loadstone.kernel.process import Credentials, FsContext, Process, Task
from loadstone.linux import abi
from loadstone.linux.console import Console
from loadstone.linux.exec.execve import known_plans
from loadstone.linux.exec.world import ProcessWorld
from loadstone.linux.profile import live_profile
from loadstone.linux.signal.delivery import deliver
from loadstone.linux.signal.signals import Action, ProcessSignals, TaskSignals, name
from loadstone.linux.syscalls.dispatch import Pending, SystemCalls
from loadstone.machine.physical import PhysicalMemory
from loadstone.machine.shootdown import Shootdown
from loadstone.memory.accounting import Commitment
from loadstone.memory.flags import MAP_ANONYMOUS, MAP_FIXED, MAP_PRIVATE
from loadstone.memory.page_cache import PageCache
from loadstone.memory.placement import Layout
from loadstone.memory.user import copy_in, copy_out
from loadstone.vfs.assemble import assemble
from loadstone.vfs.file_table import FileTable
from loadstone.wait import TIMED_OUT

ARENA = 0x1000_0000
ARENA_SIZE = 4 * 4096
_MASK = (1 << 64) - 1


class Call(NamedTuple):
    """One call: its name, arguments, and bytes to put at arena offsets before it."""

    name: str
    arguments: tuple[int, ...] = ()
    before: dict[int, bytes] = {}


class Outcome(NamedTuple):
    """What a call gave: the result, negative errno for an error, and the arena afterwards."""

    result: int
    arena: bytes


def call(name: str, *arguments: int, **before: bytes) -> Call:
    """`call("uname", ARENA)`; keywords `at_OFFSET=bytes` fill the arena first."""
    return Call(name, arguments, {int(key.removeprefix("at_"), 0): value for key, value in before.items()})


class FakeContext:
    """The registers of a task that no CPU runs."""

    def __init__(self) -> None:
        self.values: dict[str, int] = {"eflags": 0x202, "cs": 0x33, "ss": 0x2B, "rip": 0x401002, "rsp": ARENA + 0x3000}
        self.fpu = bytes(512)

    def read(self, register: str) -> int:
        return self.values.get(register, 0)

    def write(self, register: str, value: int) -> None:
        self.values[register] = value & _MASK

    def registers(self) -> dict[str, int]:
        return defaultdict(int, self.values)

    def write_registers(self, values: Mapping[str, int]) -> None:
        for register, value in values.items():
            self.write(register, value)

    @property
    def pc(self) -> int:
        return self.read("rip")

    @pc.setter
    def pc(self, value: int) -> None:
        self.write("rip", value)

    @property
    def sp(self) -> int:
        return self.read("rsp")

    @sp.setter
    def sp(self, value: int) -> None:
        self.write("rsp", value)

    def system_call(self) -> tuple[int, ...]:
        return tuple(self.read(r) for r in ("rax", "rdi", "rsi", "rdx", "r10", "r8", "r9"))

    def set_result(self, value: int) -> None:
        self.write("rax", value)
        self.write("rcx", self.pc)
        self.write("r11", self.read("eflags"))

    extended_size, extended_features = 512, 3

    def save_extended(self) -> bytes:
        """Without XSAVE, what FXSAVE saves."""
        return self.save_fpu()

    def load_extended(self, image: bytes) -> None:
        """Without XSAVE, what FXRSTOR loads."""
        self.load_fpu(image)

    def save_fpu(self) -> bytes:
        return self.fpu

    def load_fpu(self, image: bytes) -> None:
        self.fpu = image

    def prepare(self, number: int, arguments: Sequence[int]) -> None:
        for register, value in zip(
            ("rax", "rdi", "rsi", "rdx", "r10", "r8", "r9"), (number, *arguments, *[0] * 6), strict=False
        ):
            self.write(register, value)


class FakePersonality:
    """What handlers ask the personality for."""

    def __init__(self, events: Events) -> None:
        self.calls = SystemCalls(events)
        self.signal_name = name
        self.core_files = self.core_settings = self.namespaces = None
        self.most_descriptors = 1 << 20
        self.console = Console()

    def task_ended(self, task: Task) -> None:
        """Nobody waits for it."""

    def process_ended(self, process: Process) -> None:
        """Nobody waits for it."""


class Guest:
    """One process with one task, an arena, and the caller's own credentials, limits and nice value."""

    def __init__(self, pid: int | None = None) -> None:
        self.events = Events()
        profile = live_profile()
        memory = PhysicalMemory(64 << 20)
        cache, shootdown = PageCache(memory), Shootdown(memory)
        vfs = assemble(cache)
        options = MachineOptions(profile.memory_size, profile.cpu_count)
        self.kernel = Kernel(
            memory, cache, shootdown, Commitment(1 << 30), vfs, Clock(), self.events, options, profile, None
        )
        self.personality = FakePersonality(self.events)
        self.calls = self.personality.calls
        self.kernel.personality = self.personality  # type: ignore[assignment]
        who = Credentials(os.getuid(), os.getgid(), tuple(os.getgroups()))
        fs = FsContext(vfs.resolve("/"), vfs.resolve("/"))
        self.process = Process(self.kernel, pid or self.kernel.new_pid(), who, fs, FileTable(1024), ProcessSignals())
        for number in range(16):
            self.process.limits[number] = tuple(  # type: ignore[assignment]
                value & _MASK for value in resource.getrlimit(number)
            )
        self.context = FakeContext()
        self.task = Task(self.process, self.process.pid, self.context, TaskSignals())  # type: ignore[arg-type]
        self.task.nice = os.getpriority(os.PRIO_PROCESS, 0)
        world = ProcessWorld(self.kernel, self.process, None, profile, known_plans(profile))  # type: ignore[arg-type]
        self.space = self.process.space = world.new_space(Layout())
        self.space.map(ARENA, ARENA_SIZE, 3, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED)
        self.kernel.processes[self.process.pid] = self.process
        self.kernel.tasks[self.task.tid] = self.task
        self.numbers = abi.load().numbers

    def start(self, name: str, *arguments: int) -> Pending | None:
        """Begin a call."""
        self.context.prepare(self.numbers[name], arguments)
        pending = self.calls.dispatch(self.task)
        assert pending is None or isinstance(pending, Pending)
        return pending

    @property
    def result(self) -> int:
        """The last call's result, signed."""
        return (self.context.read("rax") ^ 1 << 63) - (1 << 63)

    def call(self, name: str, *arguments: int) -> int:
        """Make a call; one that waits runs into its deadline."""
        pending = self.start(name, *arguments)
        while pending is not None:
            pending = self.calls.resume(self.task, pending, TIMED_OUT)
        return self.result

    def put(self, offset: int, data: bytes) -> None:
        """Write into the arena."""
        copy_out(self.space, ARENA + offset, data)

    def get(self, offset: int, length: int) -> bytes:
        """Read from the arena."""
        return copy_in(self.space, ARENA + offset, length)

    def handle(self, number: int, flags: int, mask: int = 0) -> None:
        """Install a handler at 0x402000 with a restorer at 0x403000."""
        self.process.signals.actions[number] = Action(0x402000, flags | 0x4000000, 0x403000, mask)

    def deliver(self) -> None:
        """What the scheduler does before user mode."""
        if self.task.signals.attention:
            deliver(self.task)


def ours(calls: Sequence[Call], pid: int) -> list[Outcome]:
    """Run the calls on our kernel."""
    guest = Guest(pid)
    process = guest.process
    process.group, process.session = os.getpgrp(), os.getsid(0)
    parent: Any = SimpleNamespace(pid=os.getpid(), group=process.group, session=process.session)
    process.parent = parent
    process.name = guest.task.name = _own_name()
    outcomes = []
    for name_, arguments, before in calls:
        for offset, data in before.items():
            guest.put(offset, data)
        result = guest.call(name_, *(argument & _MASK for argument in arguments))
        outcomes.append(Outcome(result, guest.get(0, ARENA_SIZE)))
    return outcomes


def native(calls: Sequence[Call]) -> tuple[list[Outcome], int]:
    """Run the calls on the host's kernel, in a child; its outcomes and its process number."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(reader)
            with os.fdopen(writer, "wb") as out:
                _run_native(calls, out.write)
            status = 0
        finally:
            os._exit(status)
    os.close(writer)
    with os.fdopen(reader, "rb") as source:
        data = source.read()
    _, status = os.waitpid(child, 0)
    assert status == 0, f"the native child ended with {status:#x}"
    size = 8 + ARENA_SIZE
    records = [data[at : at + size] for at in range(0, len(data), size)]
    return [Outcome(int.from_bytes(r[:8], "little", signed=True), r[8:]) for r in records], child


def _run_native(calls: Sequence[Call], write: Callable[[bytes], Any]) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x10
    assert libc.mmap(ARENA, ARENA_SIZE, 3, flags, -1, 0) == ARENA
    libc.syscall.restype = ctypes.c_long
    numbers = abi.load().numbers
    for name_, arguments, before in calls:
        for offset, data in before.items():
            ctypes.memmove(ARENA + offset, data, len(data))
        ctypes.set_errno(0)
        values = [ctypes.c_long((a & _MASK ^ 1 << 63) - (1 << 63)) for a in arguments]
        result = libc.syscall(ctypes.c_long(numbers[name_]), *values)
        if result == -1 and ctypes.get_errno():
            result = -ctypes.get_errno()
        write(int(result).to_bytes(8, "little", signed=True) + ctypes.string_at(ARENA, ARENA_SIZE))


def compare(*calls: Call) -> list[int]:
    """Run the calls in order on both kernels and assert that each agrees; our results."""
    wanted, pid = native(calls)
    got = ours(calls, pid)
    for made, theirs, mine in zip(calls, wanted, got, strict=True):
        what = f"{made.name}({', '.join(map(hex, made.arguments))})"
        assert mine.result == theirs.result, f"{what} gives {mine.result}, natively {theirs.result}"
        if mine.arena != theirs.arena:
            at = next(i for i, (a, b) in enumerate(zip(mine.arena, theirs.arena, strict=True)) if a != b) & ~7
            raise AssertionError(
                f"{what} leaves {mine.arena[at : at + 16].hex()} at {at:#x}, "
                f"natively {theirs.arena[at : at + 16].hex()}"
            )
    return [outcome.result for outcome in got]


def _own_name() -> str:
    with open("/proc/self/comm") as file:
        return file.read().rstrip("\n")

"""The fault oracle: every page fault of a real process, exact, from perf_event_open(2).

The program is executed with address randomisation off and PERF_COUNT_SW_PAGE_FAULTS sampled with period 1, from execve
on, in every thread and child. The kernel counts on entry to its handler, so faults that end in a signal or in an
exception fix-up count, and pages that it gets for itself (the arguments during execve, MAP_POPULATE) do not.

User-mode faults need `perf_event_paranoid` <= 2, those in kernel mode root (CAP_PERFMON) or <= 1.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import resource
import select
import signal
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import NamedTuple, NoReturn

from loadstone.errors import HostError

USER, KERNEL = "user", "kernel"

# include/uapi/linux/perf_event.h, arch/x86/entry/syscalls/syscall_64.tbl
_PERF_EVENT_OPEN = 298
_TYPE_SOFTWARE, _PAGE_FAULTS = 1, 2
_ATTRIBUTE_SIZE = 128
_IP, _TID, _TIME, _ADDRESS = 1, 2, 4, 8
_DISABLED, _INHERIT, _EXCLUDE_KERNEL, _ENABLE_ON_EXEC = 1 << 0, 1 << 1, 1 << 5, 1 << 12
_MAPPINGS, _TASKS, _WATERMARK, _DATA_MAPPINGS, _WITH_INODE = 1 << 8, 1 << 13, 1 << 14, 1 << 17, 1 << 23
_LOST, _FORK, _SAMPLE, _MMAP2 = 2, 7, 9, 10
_MODE_MASK, _IN_USER_MODE = 7, 2
_DATA_HEAD, _DATA_TAIL = 1024, 1032  # in struct perf_event_mmap_page
_SAMPLE_BODY = struct.Struct("<QIIQQ")  # ip, pid, tid, time, address
_FORK_BODY = struct.Struct("<IIIIQ")  # pid, parent, tid, parent's tid, time
_MMAP2_NAME = 64  # where the path begins in the body
_RING_PAGES = 2048  # a power of two; halved until the host permits it

_TRACEME, _ADDR_NO_RANDOMIZE, _PR_SET_PDEATHSIG = 0, 0x40000, 1
_UNLIMITED = (1 << 64) - 1  # RLIM_INFINITY of the kernel; Python calls it -1
_SET_ASIDE = (signal.SIGPIPE, signal.SIGXFSZ)  # Python ignores them, and execve would hand that on


class NativeFault(NamedTuple):
    """One fault. `task` counts the threads and children that fault by their creation; the program's first is 0."""

    mode: str  # user | kernel
    address: int
    pc: int
    task: int = 0


class NativeRun(NamedTuple):
    """A whole run. `status` is waitpid's; `files` are those that were mapped; without `kernel_mode` only user mode."""

    faults: tuple[NativeFault, ...]
    files: frozenset[str]
    status: int
    kernel_mode: bool


def record_faults(
    path: str | bytes,
    argv: Sequence[bytes],
    envp: Sequence[bytes],
    *,
    cwd: str | None = None,
    stack_limit: int | None = None,
    timeout: float | None = None,
    to_the_end: bool = True,
) -> NativeRun:
    """Execute `path` on the host, its standard files being /dev/null, and record its page faults.

    Args:
        stack_limit: soft RLIMIT_STACK in bytes, 2 ** 64 - 1: no limit; None leaves ours.
        timeout: seconds after which it is killed.
        to_the_end: False: stop it before its first instruction, and kill it there.

    Raises:
        HostError: the host does not permit it, the program cannot be executed, or it took longer than `timeout`.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    with ExitStack() as cleanup:
        child = _Child(libc, os.fsencode(path), argv, envp, cwd, stack_limit, traced=not to_the_end)
        cleanup.callback(child.kill)
        rings, kernel_mode = _open_rings(libc, child.pid)
        for ring in rings:
            cleanup.callback(ring.close)
        child.start()
        status = _watch(child, rings, timeout)
        return _collect(rings, child.pid, status, kernel_mode)


# ------------------------------------------------------------------------------------------------ the child


class _Child:
    """A forked process that waits for `start` and then executes the program."""

    def __init__(
        self,
        libc: ctypes.CDLL,
        path: bytes,
        argv: Sequence[bytes],
        envp: Sequence[bytes],
        cwd: str | None,
        stack_limit: int | None,
        traced: bool,
    ) -> None:
        self._libc, self._traced = libc, traced
        self._cwd = cwd
        self._stack_limit = resource.RLIM_INFINITY if stack_limit == _UNLIMITED else stack_limit
        strings = ctypes.c_char_p
        arguments = (strings * (len(argv) + 1))(*argv, None)
        environment = (strings * (len(envp) + 1))(*envp, None)
        report, answer = os.pipe2(os.O_CLOEXEC)
        gate, self._gate = os.pipe2(os.O_CLOEXEC)
        nowhere = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        self._report = report
        self._ended = False
        parent = os.getpid()
        self.pid = os.fork()
        if self.pid == 0:
            self._become(lambda: libc.execve(path, arguments, environment), parent, gate, answer, nowhere)
        for fd in (gate, answer, nowhere):
            os.close(fd)

    def _become(self, execute: Callable[[], int], parent: int, gate: int, answer: int, nowhere: int) -> NoReturn:
        """In the child. What went wrong goes back as an errno."""
        number = errno.EINVAL
        try:
            self._libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            if os.getppid() != parent:  # it died before that
                os._exit(127)
            os.setsid()  # away from the user's terminal, and with a number under which `kill` finds its children too
            for fd in map(int, os.listdir("/proc/self/fd")):
                _close_on_exec(fd)
            for fd in range(3):
                os.dup2(nowhere, fd)
            for each in _SET_ASIDE:
                signal.signal(each, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
            if self._cwd is not None:
                os.chdir(self._cwd)
            self._libc.personality(_ADDR_NO_RANDOMIZE)
            if self._traced:
                self._libc.ptrace(_TRACEME, 0, 0, 0)
            os.read(gate, 1)
            if self._stack_limit is not None:  # last of all: our own stack may be larger
                hard = resource.getrlimit(resource.RLIMIT_STACK)[1]
                resource.setrlimit(resource.RLIMIT_STACK, (self._stack_limit, hard))
            execute()
            number = ctypes.get_errno()
        except OSError as error:
            number = error.errno or number
        finally:
            os.write(answer, number.to_bytes(4, "little"))
            os._exit(127)

    def start(self) -> None:
        """Let it go on. Raises HostError when it could not execute the program."""
        os.write(self._gate, b"!")
        failure = os.read(self._report, 4)  # nothing once execve has closed the other end
        if failure:
            raise HostError(f"the kernel does not execute it: {os.strerror(int.from_bytes(failure, 'little'))}")

    def wait(self) -> int | None:
        """waitpid's status once it has ended; None: not yet. One that is traced ends at its first instruction."""
        pid, status = os.waitpid(self.pid, 0 if self._traced else os.WNOHANG)
        if not pid:
            return None
        if os.WIFSTOPPED(status):
            os.kill(self.pid, signal.SIGKILL)
            _, status = os.waitpid(self.pid, 0)
        self._ended = True
        return status

    def kill(self) -> None:
        """End it, if it has not ended yet, with those of its children that are still in its process group."""
        os.close(self._gate)
        os.close(self._report)
        if not self._ended:
            with suppress(ProcessLookupError):  # it had no time to make its group
                os.killpg(self.pid, signal.SIGKILL)
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)


def _close_on_exec(fd: int) -> None:
    with suppress(OSError):  # EBADF: the descriptor of the directory that was listed
        os.set_inheritable(fd, False)


# ------------------------------------------------------------------------------------------------ perf


class _Ring:
    """One event's ring buffer, read while the program runs."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.records: list[tuple[int, int, bytes]] = []  # type, misc, body
        pages = _RING_PAGES
        while True:
            try:
                self._map = mmap.mmap(fd, mmap.PAGESIZE * (1 + pages))
                break
            except OSError as error:
                pages //= 2
                if not pages:
                    os.close(fd)
                    raise HostError(f"the kernel gives no memory for recording faults: {error.strerror}") from error
        self._size = mmap.PAGESIZE * pages

    def drain(self) -> None:
        """Take out what is there."""
        head, tail = struct.unpack_from("<QQ", self._map, _DATA_HEAD)
        data = self._bytes(tail, head - tail)
        struct.pack_into("<Q", self._map, _DATA_TAIL, head)
        at = 0
        while at < len(data):
            kind, misc, size = struct.unpack_from("<IHH", data, at)
            self.records.append((kind, misc, data[at + 8 : at + size]))
            at += size

    def _bytes(self, position: int, length: int) -> bytes:
        start = position % self._size
        base = mmap.PAGESIZE
        first = self._map[base + start : base + min(start + length, self._size)]
        return first + self._map[base : base + length - len(first)]

    def close(self) -> None:
        """Give it back."""
        self._map.close()
        os.close(self.fd)


def _open_rings(libc: ctypes.CDLL, pid: int) -> tuple[list[_Ring], bool]:
    """An event a CPU, since one that children inherit cannot follow its task over CPUs; whether kernel mode is seen."""
    rings: list[_Ring] = []
    kernel_mode = True
    try:
        for cpu in _online_cpus():
            fd = _open_event(libc, pid, cpu, kernel_mode)
            if fd < 0 and kernel_mode and not rings and ctypes.get_errno() in (errno.EACCES, errno.EPERM):
                kernel_mode = False
                fd = _open_event(libc, pid, cpu, kernel_mode)
            if fd < 0:
                raise _refusal(ctypes.get_errno())
            rings.append(_Ring(fd))
    except BaseException:
        for ring in rings:
            ring.close()
        raise
    return rings, kernel_mode


def _open_event(libc: ctypes.CDLL, pid: int, cpu: int, kernel_mode: bool) -> int:
    flags = _DISABLED | _INHERIT | _ENABLE_ON_EXEC | _MAPPINGS | _DATA_MAPPINGS | _WITH_INODE | _TASKS | _WATERMARK
    if not kernel_mode:
        flags |= _EXCLUDE_KERNEL
    attributes = ctypes.create_string_buffer(_ATTRIBUTE_SIZE)
    sampled = _IP | _TID | _TIME | _ADDRESS
    watermark = _RING_PAGES * mmap.PAGESIZE // 4
    struct.pack_into(
        "<IIQQQQQI", attributes, 0,
        _TYPE_SOFTWARE, _ATTRIBUTE_SIZE, _PAGE_FAULTS, 1, sampled, 0, flags, watermark,
    )  # fmt: skip
    return int(libc.syscall(_PERF_EVENT_OPEN, attributes, pid, cpu, -1, 8))  # PERF_FLAG_FD_CLOEXEC


def _refusal(number: int) -> HostError:
    why = f"the kernel does not let us record page faults (perf_event_open: {os.strerror(number)})"
    if number not in (errno.EACCES, errno.EPERM):
        return HostError(why)
    try:
        with open("/proc/sys/kernel/perf_event_paranoid", encoding="ascii") as file:
            level = f"; kernel.perf_event_paranoid is {file.read().strip()}"
    except OSError:
        level = ""
    return HostError(why + level, "2 or less allows user mode, root sees kernel mode as well")


def _online_cpus() -> list[int]:
    with open("/sys/devices/system/cpu/online", encoding="ascii") as file:
        parts = [part.partition("-") for part in file.read().strip().split(",")]
    return [cpu for first, _, last in parts for cpu in range(int(first), int(last or first) + 1)]


def _watch(child: _Child, rings: list[_Ring], timeout: float | None) -> int:
    """Drain the rings until the child ends; its status."""
    deadline = time.monotonic() + timeout if timeout is not None else None
    with _pid_descriptor(child.pid) as ended:
        poll = select.poll()
        for fd in (ended, *(ring.fd for ring in rings)):
            poll.register(fd, select.POLLIN)
        while (status := child.wait()) is None:
            if deadline is not None and time.monotonic() >= deadline:
                raise HostError(f"it runs longer than {timeout:g} s on the host", "--timeout SECONDS allows more")
            for fd, events in poll.poll(_LOOK_MS):
                if events & ~select.POLLIN:  # every task of an event has ended
                    poll.unregister(fd)
            for ring in rings:
                ring.drain()
    for ring in rings:
        ring.drain()
    return status


_LOOK_MS = 20


@contextmanager
def _pid_descriptor(pid: int) -> Iterator[int]:
    fd = os.pidfd_open(pid)
    try:
        yield fd
    finally:
        os.close(fd)


def _collect(rings: list[_Ring], first: int, status: int, kernel_mode: bool) -> NativeRun:
    """Put the records of all CPUs in the order of time."""
    samples: list[tuple[int, int, str, int, int]] = []  # time, tid, mode, address, pc
    born = {first: 0}  # tid -> time
    files = set()
    for ring in rings:
        for kind, misc, body in ring.records:
            if kind == _SAMPLE:
                pc, _, tid, when, address = _SAMPLE_BODY.unpack_from(body)
                mode = USER if misc & _MODE_MASK == _IN_USER_MODE else KERNEL
                samples.append((when, tid, mode, address, pc))
            elif kind == _FORK:
                _, _, tid, _, when = _FORK_BODY.unpack_from(body)
                born.setdefault(tid, when)
            elif kind == _MMAP2:
                files.add(os.fsdecode(body[_MMAP2_NAME:].partition(b"\0")[0]))
            elif kind == _LOST:
                raise HostError("the program faults faster than its faults can be recorded: some were lost")
    samples.sort(key=lambda sample: sample[0])
    faulting = {sample[1] for sample in samples} | {first}
    number = {tid: place for place, tid in enumerate(sorted(faulting, key=lambda tid: born[tid]))}
    faults = tuple(NativeFault(mode, address, pc, number[tid]) for _, tid, mode, address, pc in samples)
    return NativeRun(faults, frozenset(name for name in files if name.startswith("/")), status, kernel_mode)

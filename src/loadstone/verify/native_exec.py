"""A child of ours that has just executed a program: stopped before the first instruction, traced, harmless.

fork, `personality(ADDR_NO_RANDOMIZE)`, PTRACE_TRACEME, execve, SIGTRAP at the first instruction. The child calls
nothing but what was looked up before the fork.
"""

from __future__ import annotations

import errno as _errno
import os
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from loadstone.errors import HostError

if TYPE_CHECKING:
    import ctypes

Text = str | bytes

_TRACEME, KILL_SIGNAL, _GETREGSET, _SETOPTIONS = 0, 9, 0x4204, 0x4200
_EXITKILL = 1 << 20
_SIGTRAP = 5
_ADDR_NO_RANDOMIZE = 0x0040000
_PR_SET_PDEATHSIG = 1


class NativeFailure(Exception):  # noqa: N818 - an answer of the kernel, not a fault of ours
    """The kernel did not start the program.

    Attributes:
        errno: what execve returned, as a number; 0 when the process was killed instead.
        signal: the signal that killed the process after the point of no return; 0 when execve returned.
    """

    def __init__(self, errno: int = 0, signal: int = 0) -> None:
        super().__init__(errno, signal)
        self.errno = errno
        self.signal = signal

    @property
    def name(self) -> str:
        """`ENOEXEC`, or `signal 11`."""
        return _errno.errorcode.get(self.errno, str(self.errno)) if self.errno else f"signal {self.signal}"

    def __str__(self) -> str:
        return self.name


class Conditions(NamedTuple):
    """How the program is executed: see `native.native_process`."""

    cwd: Text | None = None
    stack_limit: int | None = None
    uid: int | None = None
    randomize: bool = False


class Libc:
    """The few functions of the C library that the child and the tracer call, looked up before the fork."""

    def __init__(self) -> None:
        import ctypes
        import platform
        import sys

        if sys.platform != "linux" or platform.machine() != "x86_64":
            raise HostError("the native oracle needs a Linux x86-64 host")
        self._ctypes = ctypes
        library = ctypes.CDLL(None, use_errno=True)
        self.personality = library.personality
        self.personality.argtypes = [ctypes.c_ulong]
        self.ptrace = library.ptrace
        self.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
        self.ptrace.restype = ctypes.c_long
        self.prctl = library.prctl
        self._execve = library.execve

    def prepare_exec(self, path: bytes, argv: list[bytes], envp: list[bytes]) -> Callable[[], int]:
        """A function that calls execve with these arguments and returns errno."""
        if any(b"\0" in word for word in (path, *argv, *envp)):
            raise ValueError("a NUL byte inside a path, argument or environment string")
        strings = self._ctypes.c_char_p
        arguments = (strings * (len(argv) + 1))(*argv, None)
        environment = (strings * (len(envp) + 1))(*envp, None)
        execve, get_errno = self._execve, self._ctypes.get_errno

        def run() -> int:
            execve(path, arguments, environment)
            return get_errno()

        return run

    def register_set(self, pid: int, number: int, size: int) -> bytes:
        """PTRACE_GETREGSET."""
        buffer = self._ctypes.create_string_buffer(size)
        vector = (self._ctypes.c_size_t * 2)(self._ctypes.addressof(buffer), size)
        if self.ptrace(_GETREGSET, pid, number, self._address(vector)) < 0:
            raise HostError(f"PTRACE_GETREGSET: {os.strerror(self._ctypes.get_errno())}")
        return buffer.raw[: vector[1]]

    def _address(self, object_: ctypes.Array[Any]) -> int:
        return self._ctypes.addressof(object_)


def spawn(libc: Libc, exec_: Callable[[], int], conditions: Conditions) -> int:
    """Fork a child up to its first instruction; the pid. Raises NativeFailure or HostError, the child reaped."""
    import resource  # before the fork: the child imports nothing
    import signal

    reading, writing = os.pipe2(os.O_CLOEXEC)
    parent = os.getpid()
    try:
        pid = os.fork()
        if pid == 0:
            _child(libc, exec_, conditions, parent, writing, resource, signal)
    except BaseException:
        os.close(reading)
        os.close(writing)
        raise
    os.close(writing)
    try:
        _, status = os.waitpid(pid, 0)
        report = os.read(reading, 5)
    except BaseException:  # Ctrl-C
        kill(pid)
        raise
    finally:
        os.close(reading)
    if os.WIFSTOPPED(status) and os.WSTOPSIG(status) == _SIGTRAP and not report:
        libc.ptrace(_SETOPTIONS, pid, 0, _EXITKILL)
        return pid
    raise _refusal(pid, status, report)


def _refusal(pid: int, status: int, report: bytes) -> NativeFailure | HostError:
    """Why there is no program, by how the child stopped or ended (waitpid's status) and what it reported."""
    if os.WIFSTOPPED(status):
        kill(pid)
        return NativeFailure(signal=os.WSTOPSIG(status))
    if os.WIFSIGNALED(status):
        return NativeFailure(signal=os.WTERMSIG(status))
    if len(report) != 5:
        return HostError("the native oracle's child ended without an answer")
    stage, number = struct.unpack("<Bi", report)
    if stage:
        return HostError(f"the native oracle cannot {_STAGES[stage]}: {os.strerror(number)}")
    return NativeFailure(errno=number)


def kill(pid: int) -> None:
    """End a child and reap it; harmless when it is already gone."""
    try:
        os.kill(pid, KILL_SIGNAL)
        os.waitpid(pid, 0)
    except (ProcessLookupError, ChildProcessError):
        pass


_STAGES = ("execve", "prepare the process", "set its personality", "trace it (PTRACE_TRACEME)")


def _child(
    libc: Libc, exec_: Callable[[], int], conditions: Conditions, parent: int, writing: int, resource: Any, signal: Any
) -> NoReturn:
    """Become the program, or report (stage, errno) through the pipe. Never returns, whatever happens."""
    stage, number = 1, _errno.EINVAL
    try:
        # A blocked SIGTRAP would stay pending, and the program would run.
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        libc.prctl(_PR_SET_PDEATHSIG, KILL_SIGNAL, 0, 0, 0)
        if os.getppid() != parent:  # it died before that: nobody would trace the program, or end it
            os._exit(127)
        _meet(conditions, resource)
        stage, number = 2, _errno.EPERM
        if libc.personality(0 if conditions.randomize else _ADDR_NO_RANDOMIZE) >= 0:
            stage = 3
            if libc.ptrace(_TRACEME, 0, None, None) >= 0:
                stage, number = 0, exec_()
    except OSError as error:
        number = error.errno or number
    finally:
        try:
            os.write(writing, struct.pack("<Bi", stage, number))
        finally:
            os._exit(127)


def _meet(conditions: Conditions, resource: Any) -> None:
    """Limits, directory and user; no core file."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if conditions.stack_limit is not None:
        hard = resource.getrlimit(resource.RLIMIT_STACK)[1]
        resource.setrlimit(resource.RLIMIT_STACK, (conditions.stack_limit, hard))
    if conditions.cwd is not None:
        os.chdir(conditions.cwd)
    if conditions.uid is not None:
        os.setgroups([])
        os.setresgid(conditions.uid, conditions.uid, conditions.uid)
        os.setresuid(conditions.uid, conditions.uid, conditions.uid)

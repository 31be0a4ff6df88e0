"""A directory from which the kernel executes nothing, for as long as a function runs.

The mount is in a mount namespace of a child process's own, so that nobody else sees it and nothing is left of it.
"""

from __future__ import annotations

import ctypes
import os
import pickle
import signal
from collections.abc import Callable
from typing import NoReturn, TypeVar

from loadstone.errors import HostError

_CLONE_NEWNS = 0x20000  # linux/sched.h
_MS_NOEXEC, _MS_REC, _MS_PRIVATE = 8, 0x4000, 1 << 18  # linux/mount.h

Result = TypeVar("Result")


def in_noexec_directory(directory: str, function: Callable[[], Result]) -> Result:
    """`function()`, in a child process for which `directory` is an empty tmpfs mounted noexec. The result is pickled.

    Raises HostError where this process may not mount.
    """
    reading, writing = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        _answer(writing, directory, function)
    os.close(writing)
    try:
        with open(reading, "rb") as file:
            data = file.read()
    except BaseException:  # Ctrl-C
        os.kill(pid, signal.SIGKILL)
        raise
    finally:
        os.waitpid(pid, 0)
    if not data:
        raise HostError("the process with the noexec directory ended without an answer")
    result, error = pickle.loads(data)
    if error:
        raise HostError(error)
    return result  # type: ignore[no-any-return]


def _answer(writing: int, directory: str, function: Callable[[], object]) -> NoReturn:
    """Mount, call, answer (result, error), and end, whatever happens: Ctrl-C ends it without an answer."""
    try:
        try:
            _mount(directory)
            answer: tuple[object, str] = function(), ""
        except Exception as error:
            answer = None, f"no noexec directory: {error}"
        with open(writing, "wb") as file:
            pickle.dump(answer, file)
    finally:
        os._exit(0)


def _mount(directory: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)

    def call(result: int) -> None:
        if result < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))

    call(libc.unshare(_CLONE_NEWNS))
    call(libc.mount(b"none", b"/", None, ctypes.c_ulong(_MS_REC | _MS_PRIVATE), None))
    call(libc.mount(b"tmpfs", os.fsencode(directory), b"tmpfs", ctypes.c_ulong(_MS_NOEXEC), b"mode=755"))

"""The page faults of a real process, every one with its mode and address, counted by perf_event_open(2)."""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
import struct
from collections.abc import Sequence
from typing import NamedTuple

import pytest

PERF_EVENT_OPEN = 298  # arch/x86/entry/syscalls/syscall_64.tbl
PTRACE_TRACEME, PTRACE_CONT = 0, 7
ADDR_NO_RANDOMIZE = 0x40000
SAMPLE_IP, SAMPLE_TID, SAMPLE_ADDR = 1, 2, 8
DISABLED, ENABLE_ON_EXEC = 1 << 0, 1 << 12
RECORD_SAMPLE, CPUMODE_MASK, CPUMODE_USER = 9, 7, 2
RING_PAGES = 512


class NativeFault(NamedTuple):
    """One fault: `user` or `kernel`, where, and by which instruction."""

    mode: str
    address: int
    pc: int


def exec_faults(path: str, argv: Sequence[bytes], envp: Sequence[bytes]) -> list[int]:
    """The addresses of the faults before the first instruction. Skips the test where the host does not let us ask."""
    return [fault.address for fault in _trace(path, argv, envp, to_the_end=False)]


def run_faults(path: str, argv: Sequence[bytes], envp: Sequence[bytes]) -> list[NativeFault]:
    """The faults of a whole run, from execve to exit, its output thrown away. Skips as `exec_faults`."""
    return _trace(path, argv, envp, to_the_end=True)


def _trace(path: str, argv: Sequence[bytes], envp: Sequence[bytes], *, to_the_end: bool) -> list[NativeFault]:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    arguments = (ctypes.c_char_p * (len(argv) + 1))(*argv, None)
    environment = (ctypes.c_char_p * (len(envp) + 1))(*envp, None)
    nowhere = os.open("/dev/null", os.O_RDWR)
    pid = os.fork()
    if pid == 0:
        for fd in range(3):
            os.dup2(nowhere, fd)
        libc.personality(ADDR_NO_RANDOMIZE)
        libc.ptrace(PTRACE_TRACEME, 0, 0, 0)
        os.kill(os.getpid(), signal.SIGSTOP)
        libc.execve(os.fsencode(path), arguments, environment)
        os._exit(1)
    os.close(nowhere)
    fd, ended = -1, False
    try:
        os.waitpid(pid, 0)
        attributes = ctypes.create_string_buffer(128)  # struct perf_event_attr: software event, page faults, period 1
        kind = SAMPLE_IP | SAMPLE_TID | SAMPLE_ADDR
        struct.pack_into("<IIQQQQQ", attributes, 0, 1, 128, 2, 1, kind, 0, DISABLED | ENABLE_ON_EXEC)
        fd = libc.syscall(PERF_EVENT_OPEN, attributes, pid, -1, -1, 0)
        if fd < 0:
            pytest.skip(f"perf_event_open: {os.strerror(ctypes.get_errno())}")
        ring = mmap.mmap(fd, mmap.PAGESIZE * (1 + RING_PAGES))
        stops = 0
        while not ended and (to_the_end or not stops):
            libc.ptrace(PTRACE_CONT, pid, 0, 0)
            status = os.waitpid(pid, 0)[1]
            ended = not os.WIFSTOPPED(status)
            stops += 1
        return _samples(ring)
    finally:
        if not ended:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        if fd >= 0:
            os.close(fd)


def _samples(ring: mmap.mmap) -> list[NativeFault]:
    (head,) = struct.unpack_from("<Q", ring, 1024)  # perf_event_mmap_page.data_head
    assert head < RING_PAGES * mmap.PAGESIZE, "more faults than the ring holds"
    found, position = [], 0
    while position < head:
        kind, misc, size = struct.unpack_from("<IHH", ring, mmap.PAGESIZE + position)
        if kind == RECORD_SAMPLE:  # ip, pid and tid, addr
            pc, address = struct.unpack_from("<Q8xQ", ring, mmap.PAGESIZE + position + 8)
            mode = "user" if misc & CPUMODE_MASK == CPUMODE_USER else "kernel"
            found.append(NativeFault(mode, address, pc))
        position += size
    return found

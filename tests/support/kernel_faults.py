"""The kernel-mode page faults of a real exec, before the first instruction, counted by perf_event_open(2)."""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
import struct
from collections.abc import Sequence

import pytest

PERF_EVENT_OPEN = 298  # arch/x86/entry/syscalls/syscall_64.tbl
PTRACE_TRACEME, PTRACE_CONT = 0, 7
ADDR_NO_RANDOMIZE = 0x40000
SAMPLE_IP, SAMPLE_TID, SAMPLE_ADDR = 1, 2, 8
DISABLED, ENABLE_ON_EXEC = 1 << 0, 1 << 12


def exec_faults(path: str, argv: Sequence[bytes], envp: Sequence[bytes]) -> list[int]:
    """The faulting addresses, in order. Skips the test where the host does not let us ask."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    arguments = (ctypes.c_char_p * (len(argv) + 1))(*argv, None)
    environment = (ctypes.c_char_p * (len(envp) + 1))(*envp, None)
    pid = os.fork()
    if pid == 0:
        libc.personality(ADDR_NO_RANDOMIZE)
        libc.ptrace(PTRACE_TRACEME, 0, 0, 0)
        os.kill(os.getpid(), signal.SIGSTOP)
        libc.execve(os.fsencode(path), arguments, environment)
        os._exit(1)
    fd = -1
    try:
        os.waitpid(pid, 0)
        attributes = ctypes.create_string_buffer(128)  # struct perf_event_attr: software event, page faults, period 1
        kind = SAMPLE_IP | SAMPLE_TID | SAMPLE_ADDR
        struct.pack_into("<IIQQQQQ", attributes, 0, 1, 128, 2, 1, kind, 0, DISABLED | ENABLE_ON_EXEC)
        fd = libc.syscall(PERF_EVENT_OPEN, attributes, pid, -1, -1, 0)
        if fd < 0:
            pytest.skip(f"perf_event_open: {os.strerror(ctypes.get_errno())}")
        ring = mmap.mmap(fd, 4096 * 17)
        libc.ptrace(PTRACE_CONT, pid, 0, 0)
        os.waitpid(pid, 0)
        return _samples(ring)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        if fd >= 0:
            os.close(fd)


def _samples(ring: mmap.mmap) -> list[int]:
    (head,) = struct.unpack_from("<Q", ring, 1024)  # perf_event_mmap_page.data_head
    found, position = [], 0
    while position < head:
        kind, _, size = struct.unpack_from("<IHH", ring, 4096 + position)
        if kind == 9:  # PERF_RECORD_SAMPLE: ip, pid and tid, addr
            found.append(struct.unpack_from("<Q8xQ", ring, 4096 + position + 8)[1])
        position += size
    return found

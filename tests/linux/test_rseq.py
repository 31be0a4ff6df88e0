"""rseq(2): what is written at registration, and critical sections that a signal aborts."""

from __future__ import annotations

import errno
import struct

import pytest

from loadstone.linux.signal import sending, signals
from support.twins import ARENA, Guest, call, compare

SIGNATURE = 0x53053053
AREA, SECTION, CODE = ARENA, ARENA + 0x100, ARENA + 0x200


def registered() -> Guest:
    guest = Guest()
    guest.put(0, b"\xff" * 32)
    assert guest.call("rseq", AREA, 32, 0, SIGNATURE) == 0
    return guest


def test_errors_are_the_kernels() -> None:
    # the C library of the test runner has registered an area: nothing else can be tried natively
    compare(call("rseq", AREA, 32, 2, SIGNATURE), call("rseq", AREA, 32, 3, SIGNATURE))


def test_registration_writes_the_cpu() -> None:
    guest = registered()
    cpu_start, cpu, section, _, node, mm_cid = struct.unpack("<IIQIII", guest.get(0, 28))
    assert (cpu_start, cpu, section, node, mm_cid) == (0, 0, 0, 0, 0)


def test_registration_is_unique_and_can_be_undone() -> None:
    guest = registered()
    assert guest.call("rseq", AREA, 32, 0, SIGNATURE) == -errno.EBUSY
    assert guest.call("rseq", AREA, 32, 0, 1) == -errno.EPERM
    assert guest.call("rseq", AREA + 64, 32, 0, SIGNATURE) == -errno.EINVAL
    assert guest.call("rseq", AREA, 32, 1, 1) == -errno.EPERM
    assert guest.call("rseq", AREA, 32, 1, SIGNATURE) == 0
    assert struct.unpack("<II", guest.get(0, 8)) == (0, 0xFFFF_FFFF)
    assert guest.call("rseq", AREA, 32, 1, SIGNATURE) == -errno.EINVAL


@pytest.mark.parametrize(("offset", "aborted"), [(0, True), (15, True), (16, False), (-1, False)])
def test_a_signal_aborts_a_critical_section(offset: int, aborted: bool) -> None:
    guest = registered()
    abort = CODE + 0x40
    guest.put(SECTION - ARENA, struct.pack("<IIQQQ", 0, 0, CODE, 16, abort))
    guest.put(abort - 4 - ARENA, struct.pack("<I", SIGNATURE))
    guest.put(8, struct.pack("<Q", SECTION))
    guest.context.pc = CODE + offset
    guest.handle(signals.SIGUSR1, signals.SA_SIGINFO)
    sending.send(guest.process, signals.from_kernel(signals.SIGUSR1))
    guest.deliver()
    (saved,) = struct.unpack("<Q", guest.get(guest.context.sp - ARENA + 48 + 16 * 8, 8))
    assert saved == (abort if aborted else CODE + offset)
    assert guest.get(8, 8) == bytes(8)


def test_an_abort_handler_without_the_signature_is_a_segmentation_fault() -> None:
    guest = registered()
    guest.put(SECTION - ARENA, struct.pack("<IIQQQ", 0, 0, CODE, 16, CODE + 0x40))
    guest.put(8, struct.pack("<Q", SECTION))
    guest.context.pc = CODE
    guest.handle(signals.SIGUSR1, signals.SA_SIGINFO)
    sending.send(guest.process, signals.from_kernel(signals.SIGUSR1))
    guest.deliver()
    assert guest.process.status is not None
    assert guest.process.status.signal == signals.SIGSEGV

"""Signals without a CPU: what is pending, what is lost, what is restarted, and the bytes of a frame."""

from __future__ import annotations

import errno
import struct
from typing import Any

import pytest

from loadstone.errors import LinuxError
from loadstone.linux import exceptions
from loadstone.linux.profile import RLIMIT_SIGPENDING
from loadstone.linux.signal import sending, signals
from loadstone.linux.signal.signals import (
    SA_NODEFER,
    SA_ONSTACK,
    SA_RESETHAND,
    SA_RESTART,
    SA_SIGINFO,
    SIGCHLD,
    SIGFPE,
    SIGKILL,
    SIGSEGV,
    SIGTERM,
    SIGUSR1,
    SIGUSR2,
    Action,
    PendingSet,
    bit,
    from_fault,
    from_kernel,
    from_process,
)
from loadstone.linux.syscalls.dispatch import Pending
from loadstone.memory.fault import BadAccess
from loadstone.memory.vma import READ
from support.twins import ARENA, ARENA_SIZE, Guest

STACK = ARENA + 0x3000
HANDLER, RESTORER = 0x402000, 0x403000


def sent(guest: Guest, number: int, **how: Any) -> None:
    sending.send(guest.process, from_process(number, 77, 88, **how))


# ------------------------------------------------------------------------------------------------ pending sets


def test_the_queue_of_real_time_signals_has_a_limit() -> None:
    """sigqueue(3) is EAGAIN above RLIMIT_SIGPENDING; kill(2) never fails, but only one signal of it is kept."""
    guest = Guest()
    guest.process.limits[RLIMIT_SIGPENDING] = 3, 3
    sending.set_mask(guest.task, bit(40) | bit(41))
    for _ in range(3):
        sent(guest, 40, code=-1)
    with pytest.raises(LinuxError) as refused:
        sent(guest, 40, code=-1)
    assert refused.value.errno == errno.EAGAIN
    for _ in range(5):
        sent(guest, 41)
    sent(guest, SIGUSR1)
    taken = [info.number for info in iter(lambda: sending.take(guest.task, (1 << 64) - 1), None) if info]
    assert taken == [SIGUSR1, 40, 40, 40, 41]


def test_synchronous_signals_come_first_then_the_lowest_number() -> None:
    pending = PendingSet()
    for number in (SIGTERM, 40, SIGUSR1, SIGSEGV, 35):
        pending.add(from_kernel(number))
    everything = (1 << 64) - 1
    taken = [info.number for info in iter(lambda: pending.take(everything), None) if info]
    assert taken == [SIGSEGV, SIGUSR1, SIGTERM, 35, 40]


def test_standard_signals_do_not_queue_and_real_time_ones_do() -> None:
    pending = PendingSet()
    for value in range(3):
        pending.add(from_process(SIGUSR1, value, 0))
        pending.add(from_process(40, value, 0))
    everything = (1 << 64) - 1
    taken = [(info.number, info.sender[0]) for info in iter(lambda: pending.take(everything), None) if info]
    assert taken == [(SIGUSR1, 0), (40, 0), (40, 1), (40, 2)]


def test_an_ignored_signal_is_lost_unless_it_is_blocked() -> None:
    guest = Guest()
    sent(guest, SIGCHLD)
    assert not guest.process.signals.pending.mask
    sending.set_mask(guest.task, bit(SIGCHLD))
    sent(guest, SIGCHLD)
    assert guest.process.signals.pending.mask == bit(SIGCHLD)
    sending.set_action(guest.process, SIGCHLD, Action(signals.SIG_IGN))
    assert not guest.process.signals.pending.mask


def test_kill_and_stop_cannot_be_blocked() -> None:
    guest = Guest()
    sending.set_mask(guest.task, (1 << 64) - 1)
    assert not guest.task.signals.mask & (bit(SIGKILL) | bit(signals.SIGSTOP))


# ------------------------------------------------------------------------------------------------ default actions


@pytest.mark.parametrize("number", [SIGTERM, SIGKILL, SIGSEGV, signals.SIGPWR, 40])
def test_the_default_action_ends_the_process(number: int) -> None:
    guest = Guest()
    sent(guest, number)
    guest.deliver()
    assert guest.process.status is not None
    assert guest.process.status.signal == number


@pytest.mark.parametrize("blocked", [False, True])
def test_a_fault_that_is_blocked_or_ignored_kills(blocked: bool) -> None:
    guest = Guest()
    if blocked:
        guest.handle(SIGSEGV, SA_SIGINFO)
        sending.set_mask(guest.task, bit(SIGSEGV))
    else:
        guest.process.signals.actions[SIGSEGV] = Action(signals.SIG_IGN)
    exceptions.force_fault(guest.task, BadAccess(SIGSEGV, 1, 0x10, READ, ""))
    guest.deliver()
    assert guest.process.status is not None
    assert guest.process.status.signal == SIGSEGV


@pytest.mark.parametrize(
    ("vector", "number", "code", "located"),
    [
        (0, SIGFPE, 1, True),
        (3, signals.SIGTRAP, 0x80, False),
        (4, SIGSEGV, 0x80, False),
        (6, signals.SIGILL, 2, True),
        (12, signals.SIGBUS, 0x80, False),
        (13, SIGSEGV, 0x80, False),
        (17, signals.SIGBUS, 1, False),
    ],
)
def test_exceptions_become_the_signals_of_traps_c(vector: int, number: int, code: int, located: bool) -> None:
    guest = Guest()
    exceptions.force_exception(guest.task, vector, 5)
    (info,) = guest.task.signals.pending.queue
    assert (info.number, info.code) == (number, code)
    assert info.address == (guest.context.pc if located else 0)
    assert (guest.task.signals.trap_number, guest.task.signals.error_code) == (vector, 5)


@pytest.mark.parametrize(("dr6", "code"), [(1 << 14, 2), (0, 1)])  # TRAP_TRACE of a single step, TRAP_BRKPT of INT1
def test_dr6_tells_what_a_debug_exception_is(dr6: int, code: int) -> None:
    guest = Guest()
    exceptions.force_exception(guest.task, 1, dr6)
    (info,) = guest.task.signals.pending.queue
    assert (info.number, info.code, info.address) == (signals.SIGTRAP, code, guest.context.pc)
    assert (guest.task.signals.trap_number, guest.task.signals.error_code) == (1, 0)


@pytest.mark.parametrize(
    ("flag", "code"), [(0x01, 7), (0x02, 5), (0x04, 3), (0x08, 4), (0x10, 5), (0x20, 6), (0x05, 7)]
)
def test_floating_point_exceptions_have_the_code_of_their_flag(flag: int, code: int) -> None:
    x87 = struct.pack("<HH", 0x37F & ~flag, flag).ljust(512, b"\0")
    assert exceptions.floating_code(16, x87) == code
    sse = bytes(24) + struct.pack("<I", 0x1F80 & ~(flag << 7) | flag) + bytes(484)
    assert exceptions.floating_code(19, sse) == code
    masked = bytes(24) + struct.pack("<I", 0x1F80 | flag) + bytes(484)
    assert exceptions.floating_code(19, masked) == 0


# ------------------------------------------------------------------------------------------------ frames


def test_the_frame_has_every_field_at_its_place() -> None:
    guest = Guest()
    guest.put(0, b"\xcc" * ARENA_SIZE)
    registers = [
        "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "rdi", "rsi", "rbp", "rbx",
        "rdx", "rax", "rcx",
    ]  # fmt: skip
    for value, register in enumerate(registers, 0x100):
        guest.context.write(register, value)
    guest.context.write("eflags", 0x602)
    guest.context.fpu = bytes(range(256)) * 2
    sending.set_mask(guest.task, bit(SIGUSR2))
    guest.handle(SIGSEGV, SA_SIGINFO, bit(SIGTERM))
    exceptions.force_fault(guest.task, BadAccess(SIGSEGV, 2, 0x1234, READ, ""), 4)
    guest.deliver()

    frame = guest.context.sp
    image = (STACK - 128 - 512) & ~63
    assert frame == ((image - 440) & ~15) - 8
    assert (frame + 8) % 16 == 0
    data = guest.get(frame - ARENA, 440)
    assert data[:36] == struct.pack("<QQQQi", RESTORER, 6, 0, 0, 0)
    assert data[36:40] == b"\xcc" * 4, "the padding is not written"
    assert data[40:48] == bytes(8)
    assert data[48:192] == struct.pack("<18Q", *range(0x100, 0x10F), STACK, 0x401002, 0x602)
    assert data[192:240] == struct.pack("<4H5Q", 0x33, 0, 0, 0x2B, 4, 14, bit(SIGUSR2), 0x1234, image)
    assert data[240:304] == b"\xcc" * 64, "the reserved words are not written"
    assert data[304:312] == struct.pack("<Q", bit(SIGUSR2))
    assert data[312:440] == struct.pack("<iiiiQ", SIGSEGV, 0, 2, 0, 0x1234).ljust(128, b"\0")
    fpu = guest.get(image - ARENA, 512)
    assert fpu[:464] == guest_image()[:464]
    assert fpu[464:] == struct.pack("<IIQI", 0x46505853, 516, 3, 512).ljust(48, b"\0")

    assert guest.context.pc == HANDLER
    assert [guest.context.read(r) for r in ("rdi", "rsi", "rdx", "rax")] == [SIGSEGV, frame + 312, frame + 8, 0]
    assert guest.context.read("eflags") == 0x202, "the direction flag is clear"
    assert guest.context.fpu[:2] == b"\x7f\x03"
    assert guest.context.fpu[24:28] == b"\x80\x1f\0\0"
    assert guest.task.signals.mask == bit(SIGUSR2) | bit(SIGTERM) | bit(SIGSEGV)


def guest_image() -> bytes:
    return bytes(range(256)) * 2


def test_sigreturn_undoes_it() -> None:
    guest = Guest()
    registers = [
        "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "rdi", "rsi", "rbp", "rbx",
        "rdx", "rax", "rcx", "rsp", "rip", "eflags",
    ]  # fmt: skip
    before = {register: guest.context.read(register) for register in registers}
    guest.context.fpu = struct.pack("<H", 0x27F).ljust(24, b"\0") + struct.pack("<I", 0x1F80) + bytes(484)
    fpu = guest.context.fpu
    guest.handle(SIGUSR1, SA_SIGINFO)
    sent(guest, SIGUSR1)
    guest.deliver()
    assert guest.context.pc == HANDLER
    for register in registers[:15]:
        guest.context.write(register, 0xBAD)
    guest.context.sp += 8  # ret to the restorer
    guest.start("rt_sigreturn")
    assert {register: guest.context.read(register) for register in registers} == before
    assert guest.context.fpu[:464] == fpu[:464]
    assert guest.task.signals.mask == 0


def test_a_frame_that_cannot_be_read_is_a_segmentation_fault() -> None:
    guest = Guest()
    guest.context.sp = 0x7000_0008
    guest.start("rt_sigreturn")
    guest.deliver()
    assert guest.process.status is not None
    assert guest.process.status.signal == SIGSEGV


def test_a_handler_without_room_for_its_frame_is_a_segmentation_fault() -> None:
    guest = Guest()
    guest.context.sp = 0x7000_0000
    guest.handle(SIGUSR1, SA_SIGINFO)
    guest.handle(SIGSEGV, SA_SIGINFO)
    sent(guest, SIGUSR1)
    guest.deliver()
    assert guest.process.status is not None
    assert guest.process.status.signal == SIGSEGV


def test_flags_of_the_action() -> None:
    guest = Guest()
    guest.handle(SIGUSR1, SA_NODEFER | SA_RESETHAND)
    sent(guest, SIGUSR1)
    guest.deliver()
    assert guest.task.signals.mask == 0
    assert guest.process.signals.action(SIGUSR1).handler == signals.SIG_DFL


def test_the_alternate_stack_is_entered_once() -> None:
    guest = Guest()
    guest.task.signals.altstack = (ARENA, 0x2000, 0)
    guest.handle(SIGUSR1, SA_ONSTACK)
    guest.handle(SIGUSR2, SA_ONSTACK)
    sent(guest, SIGUSR1)
    guest.deliver()
    first = guest.context.sp
    assert ARENA < first < ARENA + 0x2000 - 512
    sent(guest, SIGUSR2)
    guest.deliver()
    assert ARENA < guest.context.sp < first - 512


def test_two_signals_stack_up() -> None:
    guest = Guest()
    guest.handle(SIGUSR1, SA_SIGINFO)
    guest.handle(SIGUSR2, SA_SIGINFO)
    sent(guest, SIGUSR1)
    sent(guest, SIGUSR2)
    guest.deliver()
    assert guest.context.read("rdi") == SIGUSR2
    (interrupted,) = struct.unpack("<Q", guest.get(guest.context.sp - ARENA + 48 + 16 * 8, 8))
    assert interrupted == HANDLER, "the second handler interrupts the first before its first instruction"


# ------------------------------------------------------------------------------------------------ interrupted calls


def interrupted(guest: Guest, name: str, *arguments: int) -> None:
    """A call that waits gets a signal, and the signal is delivered."""
    pending = guest.start(name, *arguments)
    assert isinstance(pending, Pending)
    sent(guest, SIGUSR1)
    assert guest.task.signals.attention
    assert guest.calls.interrupt(guest.task, pending) is None
    guest.deliver()


def saved(guest: Guest) -> tuple[int, int]:
    """RAX (signed) and RIP as the frame has them."""
    at = guest.context.sp - ARENA + 48
    rax, rip = struct.unpack("<q", guest.get(at + 13 * 8, 8))[0], struct.unpack("<Q", guest.get(at + 16 * 8, 8))[0]
    return rax, rip


@pytest.mark.parametrize("flags", [0, SA_RESTART])
def test_pause_is_interrupted_whatever_the_flags(flags: int) -> None:
    guest = Guest()
    guest.handle(SIGUSR1, flags)
    interrupted(guest, "pause")
    assert saved(guest) == (-errno.EINTR, 0x401002)


@pytest.mark.parametrize("flags", [0, SA_RESTART])
def test_a_futex_wait_is_restarted_if_the_action_says_so(flags: int) -> None:
    guest = Guest()
    guest.handle(SIGUSR1, flags)
    interrupted(guest, "futex", ARENA, 128, 0, 0, 0, 0)
    assert saved(guest) == ((guest.numbers["futex"], 0x401000) if flags else (-errno.EINTR, 0x401002))


def test_a_sleep_ends_with_the_time_that_was_left() -> None:
    guest = Guest()
    guest.handle(SIGUSR1, SA_RESTART)
    guest.put(0, struct.pack("<qq", 1000, 0))
    interrupted(guest, "nanosleep", ARENA, ARENA + 64)
    assert saved(guest) == (-errno.EINTR, 0x401002)
    seconds, _ = struct.unpack("<qq", guest.get(64, 16))
    assert 900 < seconds <= 999


def test_without_a_handler_a_sleep_goes_on_by_restart_syscall() -> None:
    guest = Guest()
    guest.put(0, struct.pack("<qq", 1000, 0))
    pending = guest.start("nanosleep", ARENA, 0)
    assert isinstance(pending, Pending)
    deadline = pending.wait.deadline
    sending.send(guest.process, from_kernel(signals.SIGTSTP))
    assert guest.calls.interrupt(guest.task, pending) is None
    guest.process.signals.actions[signals.SIGTSTP] = Action(signals.SIG_IGN)
    guest.deliver()
    assert guest.context.read("rax") == 219
    assert guest.context.pc == 0x401000
    guest.context.pc += 2
    again = guest.start("restart_syscall")
    assert isinstance(again, Pending)
    assert again.wait.deadline == deadline


def test_sigsuspend_gives_the_old_mask_back_after_the_handler() -> None:
    guest = Guest()
    guest.handle(SIGUSR1, SA_SIGINFO)
    sending.set_mask(guest.task, bit(SIGUSR1) | bit(SIGUSR2))
    guest.put(0, struct.pack("<Q", bit(SIGTERM)))
    interrupted(guest, "rt_sigsuspend", ARENA, 8)
    assert guest.task.signals.mask == bit(SIGTERM) | bit(SIGUSR1)
    guest.context.sp += 8
    guest.start("rt_sigreturn")
    assert guest.task.signals.mask == bit(SIGUSR1) | bit(SIGUSR2)
    assert guest.result == -errno.EINTR


def test_sigtimedwait_takes_a_blocked_signal_without_its_handler() -> None:
    guest = Guest()
    guest.handle(SIGUSR1, SA_SIGINFO)
    sending.set_mask(guest.task, bit(SIGUSR1))
    guest.put(0, struct.pack("<Q", bit(SIGUSR1)))
    interrupted(guest, "rt_sigtimedwait", ARENA, ARENA + 64, 0, 8)
    assert guest.result == SIGUSR1
    assert guest.get(64, 24) == struct.pack("<iiiiiI", SIGUSR1, 0, 0, 0, 77, 88)
    assert guest.task.signals.mask == bit(SIGUSR1)
    assert guest.context.pc == 0x401002


def test_a_signal_event_is_published() -> None:
    guest, seen = Guest(), list[Any]()
    guest.events.subscribe(seen.append, ["signal"])
    guest.handle(SIGSEGV, SA_SIGINFO)
    sending.force(guest.task, from_fault(SIGSEGV, 1, 0x42))
    guest.deliver()
    assert [(e.signal, e.code, e.address, e.action) for e in seen] == [("SIGSEGV", 1, 0x42, "handler")]

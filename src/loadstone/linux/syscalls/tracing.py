"""ptrace(2): what a tracer asks of the threads that it traces (kernel/ptrace.c, arch/x86/kernel/ptrace.c)."""

from __future__ import annotations

from errno import EFAULT, EINVAL, EIO, EPERM, ESRCH
from struct import Struct
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.linux.of_task import linux_of
from loadstone.linux.signal import sending, signals
from loadstone.linux.signal.signals import HIGHEST, SIGKILL, SIGSTOP, SIGTRAP, UNBLOCKABLE
from loadstone.linux.structs import WORD
from loadstone.linux.syscalls.dispatch import CALL_REGISTERS
from loadstone.linux.syscalls.registry import PARTIAL, syscall
from loadstone.linux.syscalls.tracing_filters import check_suspension, get_filter, get_metadata
from loadstone.linux.tracing import registers as trace_registers
from loadstone.linux.tracing.inspecting import may_inspect
from loadstone.linux.tracing.ptrace import (
    AT_EXIT,
    AT_SECCOMP,
    BEFORE_CALL,
    EVENT_STOP,
    KNOWN_OPTIONS,
    RUNS,
    STEPS,
    STOPS_AT_CALLS,
    Stop,
    Tracee,
    Tracing,
)
from loadstone.machine.core import FXSAVE_SIZE
from loadstone.memory.peek import peek, poke
from loadstone.memory.user import copy_in, copy_out

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadstone.kernel.process import Task
    from loadstone.linux.syscalls.arguments import Address, Long, Pid

# include/uapi/linux/ptrace.h, arch/x86/include/uapi/asm/ptrace-abi.h
TRACEME, PEEKTEXT, PEEKDATA, PEEKUSR, POKETEXT, POKEDATA, POKEUSR, CONT, KILL, SINGLESTEP = range(10)
GETREGS, SETREGS, GETFPREGS, SETFPREGS, ATTACH, DETACH, SYSCALL = 12, 13, 14, 15, 16, 17, 24
SETOPTIONS, GETEVENTMSG, GETSIGINFO, SETSIGINFO, GETREGSET, SETREGSET, SEIZE, INTERRUPT, LISTEN = range(0x4200, 0x4209)
GETSIGMASK, SETSIGMASK, SECCOMP_GET_FILTER, SECCOMP_GET_METADATA, GET_SYSCALL_INFO = range(0x420A, 0x420F)
_NT_PRSTATUS, _NT_PRFPREG, _NT_X86_XSTATE = 1, 2, 0x202
_AUDIT_ARCH_X86_64 = 0xC000003E
_MODES = {CONT: RUNS, SYSCALL: STOPS_AT_CALLS, SINGLESTEP: STEPS}
_IOVEC = Struct("<QQ")
_CALL_INFO = Struct("<B3xIQQ")  # op, architecture, instruction and stack pointer
_MASK = (1 << 64) - 1
_XSAVE_HEADER, _MXCSR_MASK = Struct("<QQ48s"), 0xFFFF
_XCR0_AT = 464  # in an XSAVE image, where debuggers look for it (struct xstate_fx_sw_bytes)


@syscall(PARTIAL, "no watchpoints on reading; no SYSEMU and PEEKSIGINFO requests")
def ptrace(task: Task, request: Long, pid: Pid, address: Address, data: Address) -> Long:
    """ptrace(2)."""
    tracing = _tracing(task)
    if request == TRACEME:
        return _trace_me(task, tracing)
    other = task.kernel.tasks.get(pid)
    if other is None or other.process.status is not None:
        raise LinuxError(ESRCH, f"no thread {pid}")
    if request in (ATTACH, SEIZE):
        return _attach(task, tracing, other, address, data, seized=request == SEIZE)
    tracee = tracing.tracees.get(other)
    if tracee is None or tracee.tracer is not task.process:
        raise LinuxError(ESRCH, f"thread {pid} is not traced by the caller")
    if request == KILL:
        sending.send(other.process, signals.from_kernel(SIGKILL))
        return 0
    if request == INTERRUPT:
        return _interrupt(tracee)
    if tracee.stop is None:
        raise LinuxError(ESRCH, f"thread {pid} is not stopped")
    if request in _MODES or request == DETACH:
        return _let_go(tracing, tracee, request, data)
    action = _ACTIONS.get(request)
    if action is None:
        raise LinuxError(EIO, f"no ptrace request {request:#x}")
    return action(task, tracee, address, data) or 0


def _tracing(task: Task) -> Tracing:
    calls = linux_of(task).calls
    if calls.tracing is None:
        calls.tracing, calls.hooked = Tracing(), True
    return calls.tracing


def _trace_me(task: Task, tracing: Tracing) -> int:
    parent = task.process.parent
    if task in tracing.tracees or parent is None:
        raise LinuxError(EPERM, "the thread is traced, or its parent is not in the machine")
    tracing.attach(task, parent, seized=False)
    return 0


def _attach(task: Task, tracing: Tracing, other: Task, address: int, data: int, *, seized: bool) -> int:
    if seized and (address or data & ~KNOWN_OPTIONS):
        raise LinuxError(EIO, "PTRACE_SEIZE takes options and no address")
    if seized:
        check_suspension(task, data)
    process = task.process
    if other.process is process or other in tracing.tracees or not may_inspect(process, other.process):
        raise LinuxError(EPERM, "one's own threads, those of other users, and who is traced cannot be traced")
    tracee = tracing.attach(other, process, seized=seized, options=data if seized else 0)
    stopped_by = other.process.stopped_by
    if stopped_by:
        tracee.take_over_stop(stopped_by)
    if not seized:
        sending.send_task(other, signals.from_process(SIGSTOP, process.pid, process.credentials.uid))
    return 0


def _interrupt(tracee: Tracee) -> int:
    """A seized thread stops soon; one that is stopped already is left alone."""
    if not tracee.seized:
        raise LinuxError(EIO, "PTRACE_INTERRUPT is for seized threads")
    if tracee.stop is None or tracee.listening:
        tracee.listening = False
        tracee.soon(Stop(SIGTRAP | EVENT_STOP << 8))
        tracee.task.kernel.scheduler.interrupt(tracee.task)
    return 0


def _let_go(tracing: Tracing, tracee: Tracee, request: int, number: int) -> int:
    if number > HIGHEST:
        raise LinuxError(EIO, f"no signal {number}")
    if request == DETACH:
        tracing.detach(tracee, number)
    else:
        tracee.go_on(_MODES[request], number)
    return 0


# ------------------------------------------------------------------------------------------------ memory, registers


def _peek_memory(task: Task, tracee: Tracee, address: int, data: int) -> None:
    try:
        word = peek(tracee.task.process.space, address, WORD.size)
    except LinuxError:
        raise LinuxError(EIO, f"nothing is mapped at {address:#x}") from None
    copy_out(task.process.space, data, word)


def _poke_memory(task: Task, tracee: Tracee, address: int, data: int) -> None:
    try:
        poke(tracee.task.process.space, address, data.to_bytes(8, "little"))
    except LinuxError:
        raise LinuxError(EIO, f"{address:#x} cannot be written") from None


def _peek_user(task: Task, tracee: Tracee, address: int, data: int) -> None:
    copy_out(task.process.space, data, WORD.pack(trace_registers.peek_user(tracee, address)))


def _poke_user(task: Task, tracee: Tracee, address: int, data: int) -> None:
    trace_registers.poke_user(tracee, address, data)


def _get_registers(task: Task, tracee: Tracee, address: int, data: int) -> None:
    copy_out(task.process.space, data, trace_registers.pack(tracee))


def _set_registers(task: Task, tracee: Tracee, address: int, data: int) -> None:
    trace_registers.unpack(tracee, copy_in(task.process.space, data, trace_registers.SIZE))


def _get_floats(task: Task, tracee: Tracee, address: int, data: int) -> None:
    copy_out(task.process.space, data, tracee.task.context.save_fpu())


def _set_floats(task: Task, tracee: Tracee, address: int, data: int) -> None:
    tracee.task.context.load_fpu(copy_in(task.process.space, data, FXSAVE_SIZE))


def _get_set(task: Task, tracee: Tracee, kind: int, vector: int) -> None:
    """PTRACE_GETREGSET: as much as there is room for; how much that was is told."""
    context = tracee.task.context
    if kind == _NT_PRSTATUS:
        image = trace_registers.pack(tracee)
    elif kind == _NT_PRFPREG:
        image = context.save_fpu()
    elif kind == _NT_X86_XSTATE and context.extended_size > FXSAVE_SIZE:
        saved, features = context.save_extended(), context.extended_features
        image = saved[:_XCR0_AT] + features.to_bytes(8, "little") + saved[_XCR0_AT + 8 :]
    else:
        raise LinuxError(EINVAL, f"no register set {kind:#x}")
    space = task.process.space
    base, length = _IOVEC.unpack(copy_in(space, vector, _IOVEC.size))
    length = min(length, len(image))
    copy_out(space, base, image[:length])
    copy_out(space, vector + 8, WORD.pack(length))


def _set_set(task: Task, tracee: Tracee, kind: int, vector: int) -> None:
    space, context = task.process.space, tracee.task.context
    base, length = _IOVEC.unpack(copy_in(space, vector, _IOVEC.size))
    if kind == _NT_PRSTATUS:
        trace_registers.unpack(tracee, copy_in(space, base, min(length, trace_registers.SIZE)))
    elif kind == _NT_PRFPREG and length >= FXSAVE_SIZE:
        context.load_fpu(copy_in(space, base, FXSAVE_SIZE))
    elif kind == _NT_X86_XSTATE and length >= context.extended_size > FXSAVE_SIZE:
        image = copy_in(space, base, context.extended_size)
        _check_extended(image, context.extended_features)
        context.load_extended(image)
    else:
        raise LinuxError(EINVAL, f"no register set {kind:#x} of {length} bytes")


def _check_extended(image: bytes, features: int) -> None:
    """EINVAL for an XSAVE image that the CPU would not take (copy_uabi_from_kernel_to_xstate)."""
    present, compact, reserved = _XSAVE_HEADER.unpack_from(image, FXSAVE_SIZE)
    if present & ~features or compact or any(reserved) or int.from_bytes(image[24:28], "little") & ~_MXCSR_MASK:
        raise LinuxError(EINVAL, "an invalid XSAVE image")


# ------------------------------------------------------------------------------------------------ what stopped it


def _set_options(task: Task, tracee: Tracee, address: int, data: int) -> None:
    if data & ~KNOWN_OPTIONS:
        raise LinuxError(EINVAL, f"options {data:#x}")
    check_suspension(task, data)
    tracee.options = data


def _get_message(task: Task, tracee: Tracee, address: int, data: int) -> None:
    copy_out(task.process.space, data, WORD.pack(tracee.message))


def _info(tracee: Tracee) -> signals.SigInfo:
    """The siginfo of the stop; EINVAL for a stop of the group of one that is not seized, which has none."""
    stop = tracee.stop
    assert stop is not None
    if stop.signal is not None:
        return stop.signal
    number = stop.code & 0x7F
    if number != SIGTRAP and not stop.code >> 8:
        raise LinuxError(EINVAL, "stopped with its group")
    process = tracee.task.process
    return signals.from_process(number, tracee.task.tid, process.credentials.uid, stop.code)


def _get_info(task: Task, tracee: Tracee, address: int, data: int) -> None:
    copy_out(task.process.space, data, _info(tracee).pack())


def _set_info(task: Task, tracee: Tracee, address: int, data: int) -> None:
    given = signals.unpack(copy_in(task.process.space, data, 128))
    _info(tracee)
    assert tracee.stop is not None
    if tracee.stop.signal is not None:
        tracee.stop = tracee.stop._replace(signal=given)


def _get_mask(task: Task, tracee: Tracee, size: int, data: int) -> None:
    _check_mask_size(size)
    copy_out(task.process.space, data, WORD.pack(tracee.task.signals.mask))


def _set_mask(task: Task, tracee: Tracee, size: int, data: int) -> None:
    _check_mask_size(size)
    (mask,) = WORD.unpack(copy_in(task.process.space, data, WORD.size))
    tracee.task.signals.mask = mask & ~UNBLOCKABLE
    tracee.task.signals.attention = True


def _check_mask_size(size: int) -> None:
    if size != WORD.size:
        raise LinuxError(EINVAL, f"a signal mask has 8 bytes, not {size}")


def _listen(task: Task, tracee: Tracee, address: int, data: int) -> None:
    if not tracee.seized or tracee.stop is None or tracee.stop.code >> 8 != EVENT_STOP:
        raise LinuxError(EIO, "PTRACE_LISTEN is for a stop of the group")
    tracee.listen()


def _get_call(task: Task, tracee: Tracee, size: int, data: int) -> int:
    """PTRACE_GET_SYSCALL_INFO; the result is the size of all there is to tell."""
    context, stop = tracee.task.context, tracee.stop
    at = stop.at if stop is not None else 0
    image = _CALL_INFO.pack(at, _AUDIT_ARCH_X86_64, context.pc, context.sp)
    if at in BEFORE_CALL:
        found = context.registers()
        image += Struct("<7Q").pack(*(found[name] for name in CALL_REGISTERS))
        image += tracee.message.to_bytes(4, "little") if at == AT_SECCOMP else b""
    elif at == AT_EXIT:
        result = trace_registers.values(tracee)["rax"] & _MASK
        image += WORD.pack(result) + bytes([result > _MASK - 4095])
    if not size:
        raise LinuxError(EFAULT)
    copy_out(task.process.space, data, image[:size])
    return len(image)


_ACTIONS: dict[int, Callable[[Task, Tracee, int, int], int | None]] = {
    PEEKTEXT: _peek_memory,
    PEEKDATA: _peek_memory,
    POKETEXT: _poke_memory,
    POKEDATA: _poke_memory,
    PEEKUSR: _peek_user,
    POKEUSR: _poke_user,
    GETREGS: _get_registers,
    SETREGS: _set_registers,
    GETFPREGS: _get_floats,
    SETFPREGS: _set_floats,
    GETREGSET: _get_set,
    SETREGSET: _set_set,
    SETOPTIONS: _set_options,
    GETEVENTMSG: _get_message,
    GETSIGINFO: _get_info,
    SETSIGINFO: _set_info,
    GETSIGMASK: _get_mask,
    SETSIGMASK: _set_mask,
    LISTEN: _listen,
    GET_SYSCALL_INFO: _get_call,
    SECCOMP_GET_FILTER: get_filter,
    SECCOMP_GET_METADATA: get_metadata,
}

"""The frame that a handler finds on its stack, and the alternate stack (arch/x86/kernel/signal.c).

At the top the floating-point image (`fpu_frame`), and below it `struct rt_sigframe`:

    offset  0  pretcode: the address of the restorer, where the handler returns to
            8  uc_flags, uc_link
           24  uc_stack: ss_sp, ss_flags (int), ss_size
           48  uc_mcontext: r8..r15 rdi rsi rbp rbx rdx rax rcx rsp rip eflags, cs gs fs ss (16 bits each),
               err, trapno, oldmask, cr2, address of the image, 64 reserved bytes that nobody writes
          304  uc_sigmask
          312  siginfo, 128 bytes, with SA_SIGINFO only
"""

from __future__ import annotations

from contextlib import suppress
from errno import EINVAL, ENOMEM, EPERM
from operator import itemgetter
from struct import Struct
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.linux.exceptions import force_exception
from loadstone.linux.signal import fpu_frame
from loadstone.linux.signal.sending import force, set_mask
from loadstone.linux.signal.signals import (
    MINSIGSTKSZ,
    SA_ONSTACK,
    SA_RESTORER,
    SA_SIGINFO,
    SIGSEGV,
    SS_AUTODISARM,
    SS_DISABLE,
    SS_ONSTACK,
    from_kernel,
)
from loadstone.machine.core import GENERAL_PROTECTION
from loadstone.machine.segments import USER_CS, USER_SS
from loadstone.memory.user import copy_in, copy_out

if TYPE_CHECKING:
    from loadstone.kernel.process import Task
    from loadstone.linux.signal.signals import Action, SigInfo, TaskSignals
    from loadstone.machine.core import Context

_FRAME_SIZE = 440
_RED_ZONE = 128
UC_FP_XSTATE, UC_SIGCONTEXT_SS, UC_STRICT_RESTORE_SS = 1, 2, 4

_FRAME_TOP = Struct("<QQQQI")  # restorer, uc_flags, uc_link, ss_sp, ss_flags
_FRAME_MIDDLE = Struct("<Q18Q4H5Q")  # ss_size, registers, segments, err, trapno, oldmask, cr2, fpstate
_FRAME_MIDDLE_OFFSET, _FRAME_MASK_OFFSET, _FRAME_INFO_OFFSET = 40, 304, 312

_REGISTERS = (
    "r8",
    "r9",
    "r10",
    "r11",
    "r12",
    "r13",
    "r14",
    "r15",
    "rdi",
    "rsi",
    "rbp",
    "rbx",
    "rdx",
    "rax",
    "rcx",
    "rsp",
    "rip",
    "eflags",
)
_REGISTERS_OF = itemgetter(*_REGISTERS)
# eflags: what a handler may change (FIX_EFLAGS: AC OF DF TF SF ZF AF PF CF RF), and what is cleared for it (DF RF TF)
_FIX_EFLAGS = 0x40000 | 0x800 | 0x400 | 0x100 | 0x80 | 0x40 | 0x10 | 0x4 | 0x1 | 0x10000
_CLEAR_EFLAGS = 0x400 | 0x10000 | 0x100


def on_altstack(signals: TaskSignals, sp: int) -> bool:
    """Whether `sp` is on the alternate signal stack; never with SS_AUTODISARM, which leaves it on entry."""
    return not signals.altstack[2] & SS_AUTODISARM and _within(signals, sp)


def _within(signals: TaskSignals, sp: int) -> bool:
    start, size, _ = signals.altstack
    return sp > start and sp - start <= size


def altstack_state(signals: TaskSignals, sp: int) -> int:
    """ss_flags as sigaltstack(2) reports them: SS_DISABLE, SS_ONSTACK or 0."""
    if not signals.altstack[1]:
        return SS_DISABLE
    return SS_ONSTACK if on_altstack(signals, sp) else 0


def set_altstack(signals: TaskSignals, sp: int, address: int, size: int, flags: int, least: int) -> None:
    """sigaltstack(2): EPERM while on it, EINVAL for other flags, ENOMEM when smaller than `least` bytes."""
    if on_altstack(signals, sp):
        raise LinuxError(EPERM, "the alternate signal stack is in use")
    mode = flags & ~SS_AUTODISARM
    if mode not in (0, SS_ONSTACK, SS_DISABLE):
        raise LinuxError(EINVAL, f"no such signal stack flags: {flags:#x}")
    if (address, size, flags) == signals.altstack:
        return
    if mode == SS_DISABLE:
        address = size = 0
    elif size < least:
        raise LinuxError(ENOMEM, f"a signal stack of {size} bytes is smaller than {least}")
    signals.altstack = (address, size, flags)


def push_frame(task: Task, info: SigInfo, action: Action) -> None:
    """Write the frame and point the registers at the handler. LinuxError when the stack cannot take it."""
    if not action.flags & SA_RESTORER:
        raise LinuxError(EINVAL, "x86-64 handlers need SA_RESTORER")
    context, signals, space = task.context, task.signals, task.process.space
    registers = context.registers()
    frame, image = _place_frame(signals, registers["rsp"], action, fpu_frame.size(context))
    copy_out(space, image, fpu_frame.save(context))
    mask = signals.mask if signals.saved_mask is None else signals.saved_mask
    start, size, flags = signals.altstack
    uc_flags = UC_SIGCONTEXT_SS | UC_STRICT_RESTORE_SS | (UC_FP_XSTATE if fpu_frame.has_xsave(context) else 0)
    copy_out(space, frame, _FRAME_TOP.pack(action.restorer, uc_flags, 0, start, flags))
    middle = _FRAME_MIDDLE.pack(
        size,
        *_REGISTERS_OF(registers),
        USER_CS, 0, 0, USER_SS,
        signals.error_code, signals.trap_number, mask, signals.cr2, image,
    )  # fmt: skip
    copy_out(space, frame + _FRAME_MIDDLE_OFFSET, middle)
    tail = mask.to_bytes(8, "little")
    if action.flags & SA_SIGINFO:
        tail += info.pack()
    copy_out(space, frame + _FRAME_MASK_OFFSET, tail)
    _enter_handler(context, info.number, action.handler, frame, registers["eflags"])


def _place_frame(signals: TaskSignals, sp: int, action: Action, image_size: int) -> tuple[int, int]:
    """Where the frame and the floating-point image go (kernel: get_sigframe)."""
    nested = on_altstack(signals, sp)
    entering = False
    sp -= _RED_ZONE
    if action.flags & SA_ONSTACK and altstack_state(signals, sp) == 0:
        sp = signals.altstack[0] + signals.altstack[1]
        entering = True
    image = (sp - image_size) & ~63
    frame = ((image - _FRAME_SIZE) & ~15) - 8
    if (nested or entering) and not _within(signals, frame):
        raise LinuxError(ENOMEM, "the alternate signal stack overflows")
    if frame < 0:
        raise LinuxError(ENOMEM, "the stack pointer is below any stack")
    return frame, image


def _enter_handler(context: Context, number: int, handler: int, frame: int, flags: int) -> None:
    arguments = {"rdi": number, "rax": 0, "rsi": frame + _FRAME_INFO_OFFSET, "rdx": frame + 8}
    context.write_registers({**arguments, "rsp": frame, "rip": handler, "eflags": flags & ~_CLEAR_EFLAGS})
    context.load_fpu(fpu_frame.RESET)


def sigreturn(task: Task) -> None:
    """rt_sigreturn(2): everything as the frame says. A frame that cannot be read or is not valid: SIGSEGV."""
    task.signals.restart = None
    try:
        _pop_frame(task, task.context.sp - 8)
    except LinuxError:
        task.context.set_result(0)
        force(task, from_kernel(SIGSEGV))


def _pop_frame(task: Task, frame: int) -> None:
    context, signals, space = task.context, task.signals, task.process.space
    found = copy_in(space, frame, _FRAME_INFO_OFFSET)
    _, uc_flags, _, start, flags = _FRAME_TOP.unpack_from(found)
    set_mask(task, int.from_bytes(found[_FRAME_MASK_OFFSET:], "little"))
    size, *values = _FRAME_MIDDLE.unpack_from(found, _FRAME_MIDDLE_OFFSET)
    registers = dict(zip(_REGISTERS, values, strict=False))
    kept = context.read("eflags") & ~_FIX_EFLAGS
    registers["eflags"] = kept | registers["eflags"] & _FIX_EFLAGS
    context.write_registers(registers)
    code, _, _, stack = values[18:22]
    fpu_frame.load(context, space, values[26])
    signals.restart_block = None
    with suppress(LinuxError):  # the kernel does not look at the result either
        set_altstack(signals, context.sp, start, size, flags, MINSIGSTKSZ)
    if code | 3 != USER_CS or (uc_flags & UC_STRICT_RESTORE_SS and stack | 3 != USER_SS):
        force_exception(task, GENERAL_PROTECTION, (code if code | 3 != USER_CS else stack) & ~3)

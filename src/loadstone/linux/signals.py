"""Signals: what is sent, pending, blocked, and how one is delivered on x86-64.

The order of decisions is the kernel's (kernel/signal.c); the frame on the user's stack is that of
arch/x86/kernel/signal.c: the floating-point image (fpu_frame.py), and below it `struct rt_sigframe`:

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
from errno import EAGAIN, EINVAL, ENOMEM, EPERM
from struct import Struct
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.events import Signal, publish
from loadstone.kernel.process import ENDED, STOPPED, WAITING, ExitStatus
from loadstone.lean import NamedTuple
from loadstone.linux import fpu_frame
from loadstone.linux.profile import RLIMIT_SIGPENDING
from loadstone.linux.rseq import leave_critical_section
from loadstone.machine.core import DEBUG, DEBUG_STEP
from loadstone.machine.paging import PRESENT
from loadstone.memory.user import copy_in, copy_out
from loadstone.memory.vma import EXEC, PROTECTION
from loadstone.wait import WaitQueue

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadstone.kernel.process import Process, Task
    from loadstone.memory.fault import BadAccess

SIGHUP, SIGINT, SIGQUIT, SIGILL, SIGTRAP, SIGABRT, SIGBUS, SIGFPE, SIGKILL, SIGUSR1, SIGSEGV = range(1, 12)
SIGUSR2, SIGPIPE, SIGALRM, SIGTERM, SIGSTKFLT, SIGCHLD, SIGCONT, SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU = range(12, 23)
SIGURG, SIGXCPU, SIGXFSZ, SIGVTALRM, SIGPROF, SIGWINCH, SIGIO, SIGPWR, SIGSYS = range(23, 32)
SIGRTMIN, HIGHEST = 32, 64

# fmt: off
_NAMES = (
    "0", "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM",
    "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH",
    "IO", "PWR", "SYS",
)
# fmt: on

# siginfo.si_code: who sent it, or what exactly is wrong
SI_USER, SI_KERNEL, SI_TIMER, SI_TKILL = 0, 0x80, -2, -6
ILL_ILLOPN = 2
FPE_INTDIV, FPE_FLTDIV, FPE_FLTOVF, FPE_FLTUND, FPE_FLTRES, FPE_FLTINV = 1, 3, 4, 5, 6, 7
SEGV_MAPERR, SEGV_ACCERR = 1, 2
BUS_ADRALN, BUS_ADRERR = 1, 2
TRAP_BRKPT, TRAP_TRACE = 1, 2

SIG_DFL, SIG_IGN = 0, 1
SA_NOCLDSTOP, SA_NOCLDWAIT, SA_SIGINFO = 1, 2, 4
SA_RESTORER, SA_ONSTACK, SA_RESTART, SA_NODEFER, SA_RESETHAND = 0x4000000, 0x8000000, 0x10000000, 0x40000000, 0x80000000
SA_EXPOSE_TAGBITS = 0x800
# UAPI_SA_FLAGS: the kernel forgets the other bits, so that a program can tell which ones it knows
SA_KNOWN = (
    SA_NOCLDSTOP | SA_NOCLDWAIT | SA_SIGINFO | SA_RESTORER | SA_ONSTACK | SA_RESTART | SA_NODEFER | SA_RESETHAND
    | SA_EXPOSE_TAGBITS
)  # fmt: skip
SS_ONSTACK, SS_DISABLE, SS_AUTODISARM = 1, 2, 0x80000000
MINSIGSTKSZ = 2048


def bit(number: int) -> int:
    """The bit of signal `number` in a mask."""
    return 1 << (number - 1)


def bits(*numbers: int) -> int:
    """A mask of these signals."""
    mask = 0
    for number in numbers:
        mask |= bit(number)
    return mask


_MOST_QUEUED = 1 << 16  # signals of a process, where there is no limit

UNBLOCKABLE = bits(SIGKILL, SIGSTOP)
SYNCHRONOUS = bits(SIGSEGV, SIGBUS, SIGILL, SIGTRAP, SIGFPE, SIGSYS)
TERMINAL_STOPS = bits(SIGTSTP, SIGTTIN, SIGTTOU)
STOPPING = TERMINAL_STOPS | bits(SIGSTOP)
DUMPING = bits(SIGQUIT, SIGILL, SIGTRAP, SIGABRT, SIGFPE, SIGSEGV, SIGBUS, SIGSYS, SIGXCPU, SIGXFSZ)
IGNORED = bits(SIGCONT, SIGCHLD, SIGWINCH, SIGURG)


def name(number: int) -> str:
    """`SIGSEGV`; for the real-time ones `SIGRTMIN` (32), `SIGRT_1` and so on, as strace counts them."""
    if 0 < number < SIGRTMIN:
        return f"SIG{_NAMES[number]}"
    return "SIGRTMIN" if number == SIGRTMIN else f"SIGRT_{number - SIGRTMIN}"


_HEAD = Struct("<iii4x")
_KILL = Struct("<iI")
_ADDRESS = Struct("<Q")


class SigInfo(NamedTuple):
    """`siginfo_t`: `fields` is what follows signo, errno, code and padding (up to 32 bytes, the union)."""

    number: int
    code: int
    fields: bytes = b""
    errno: int = 0

    @property
    def address(self) -> int:
        """si_addr, for the signals of a fault; else 0."""
        if self.code <= 0 or not bit(self.number) & SYNCHRONOUS or len(self.fields) < 8:
            return 0
        return int(_ADDRESS.unpack_from(self.fields)[0])

    @property
    def sender(self) -> tuple[int, int]:
        """si_pid and si_uid of a signal that a process sent."""
        pid, uid = _KILL.unpack_from(self.fields.ljust(8, b"\0"))
        return pid, uid

    def pack(self) -> bytes:
        """All 128 bytes."""
        return (_HEAD.pack(self.number, self.errno, self.code) + self.fields).ljust(128, b"\0")


def from_process(number: int, pid: int, uid: int, code: int = SI_USER) -> SigInfo:
    """A signal sent by kill(2) (or with SI_TKILL by tgkill(2))."""
    return SigInfo(number, code, _KILL.pack(pid, uid))


def from_fault(number: int, code: int, address: int) -> SigInfo:
    """A signal that an instruction caused."""
    return SigInfo(number, code, _ADDRESS.pack(address))


def from_kernel(number: int) -> SigInfo:
    """A signal the kernel sends of itself, without more to say."""
    return SigInfo(number, SI_KERNEL)


def unpack(raw: bytes) -> SigInfo:
    """A siginfo that a program wrote (rt_sigqueueinfo)."""
    number, errno, code = _HEAD.unpack_from(raw)
    return SigInfo(number, code, raw[16:48], errno)


class Action(NamedTuple):
    """What a process does with one signal: `handler` is SIG_DFL, SIG_IGN or an address."""

    handler: int = SIG_DFL
    flags: int = 0
    restorer: int = 0
    mask: int = 0


DEFAULT = Action()


class PendingSet:
    """Signals sent and not yet delivered. A standard signal is in it once, a real-time one as often as it was sent."""

    __slots__ = ("mask", "queue")

    def __init__(self) -> None:
        self.mask = 0
        self.queue: list[SigInfo] = []

    def add(self, info: SigInfo) -> None:
        """Send; a standard signal that is pending already is lost."""
        if info.number < SIGRTMIN and self.mask & bit(info.number):
            return
        self.mask |= bit(info.number)
        self.queue.append(info)

    def take(self, mask: int) -> SigInfo | None:
        """The next signal out of `mask`: synchronous ones first, then by number, then the oldest."""
        wanted = self.mask & mask
        if not wanted:
            return None
        if wanted & SYNCHRONOUS:
            wanted &= SYNCHRONOUS
        number = (wanted & -wanted).bit_length()
        index = next(index for index, info in enumerate(self.queue) if info.number == number)
        info = self.queue.pop(index)
        if not any(other.number == number for other in self.queue):
            self.mask &= ~bit(number)
        return info

    def flush(self, mask: int) -> None:
        """Forget the signals in `mask`."""
        self.mask &= ~mask
        self.queue = [info for info in self.queue if not bit(info.number) & mask]


class ProcessSignals:
    """What the threads of a process share: the actions (the kernel's sighand) and the signals sent to all of them.

    `sent`: woken when a signal is sent to it, blocked or not, for those who wait for a signalfd.
    """

    __slots__ = ("actions", "pending", "sent")

    def __init__(self) -> None:
        self.actions: dict[int, Action] = {}
        self.pending = PendingSet()
        self.sent = WaitQueue("a signal in a signalfd")

    def action(self, number: int) -> Action:
        """The action for a signal."""
        return self.actions.get(number, DEFAULT)

    def exec(self) -> None:
        """execve: handlers are gone with the old image, ignored stays ignored (flush_signal_handlers)."""
        self.inherit_ignored(self)

    def inherit_ignored(self, other: ProcessSignals) -> None:
        """Ignore what `other` ignores; all other actions are the default ones."""
        ignored = [number for number, action in other.actions.items() if action.handler == SIG_IGN]
        self.actions = {number: Action(SIG_IGN) for number in ignored}


class TaskSignals:
    """One thread's signals.

    `attention`: look here before the task goes on in user mode; the one flag that the scheduler tests. `restart`:
    (ERESTART number, system-call number) of a call that was interrupted, until delivery has decided about it.
    `saved_mask`: the mask that sigsuspend and its like replaced for the time of the call.
    """

    __slots__ = (
        "altstack", "arrival", "attention", "cr2", "error_code", "mask", "pending", "restart", "restart_block",
        "saved_mask", "trap_number", "waited_for",
    )  # fmt: skip

    def __init__(self, mask: int = 0) -> None:
        self.mask = mask
        self.saved_mask: int | None = None
        self.waited_for = 0  # what sigtimedwait unblocked for its time; still counts as blocked for "ignored?"
        self.pending = PendingSet()
        self.altstack = (0, 0, 0)  # address, size, flags; without a size it is disabled whatever the flags say
        self.attention = False
        self.restart: tuple[int, int] | None = None
        self.restart_block: Callable[[Task], object] | None = None
        # the last exception, as uc_mcontext tells it (the kernel's thread.trap_nr, error_code, cr2)
        self.trap_number = 0
        self.error_code = 0
        self.cr2 = 0
        self.arrival = WaitQueue("a signal")

    def exec(self) -> None:
        """execve: the alternate stack was in the old image; mask and pending signals stay."""
        self.altstack = (0, 0, self.altstack[2])
        self.restart_block = None


# ------------------------------------------------------------------------------------------------ sending


def send(process: Process, info: SigInfo) -> None:
    """Send to a process: any of its threads that does not block the signal takes it."""
    _send(process, process.signals.pending, info)


def send_task(task: Task, info: SigInfo) -> None:
    """Send to one thread."""
    _send(task.process, task.signals.pending, info)


def _send(process: Process, pending: PendingSet, info: SigInfo) -> None:
    number = info.number
    if bit(number) & STOPPING:
        _flush(process, bit(SIGCONT))
    elif number == SIGCONT:
        _flush(process, STOPPING)
    if process.status is not None:
        return  # a zombie hears nothing
    if number in (SIGCONT, SIGKILL) and process.stopped_by:
        from loadstone.linux import jobs

        jobs.go_on(process, number)
    if _is_ignored(process, number):
        return
    if number >= SIGRTMIN and _queued(process) >= _queue_limit(process):
        if info.code != SI_USER:
            raise LinuxError(EAGAIN, "RLIMIT_SIGPENDING signals are queued")
        if pending.mask & bit(number):
            return  # the kernel keeps the bit and loses the rest
    pending.add(info)
    if process.signals.sent.waiters:
        process.kernel.scheduler.wake(process.signals.sent.wake())
    if pending is process.signals.pending:
        _choose(process, number)
    else:
        for task in process.tasks:
            recalculate(task)
    if number == SIGKILL:
        for task in process.tasks:
            process.kernel.scheduler.interrupt(task, killed=True)


def _choose(process: Process, number: int) -> None:
    """A signal for the whole process is told to one thread that does not block it (kernel: complete_signal)."""
    for task in process.tasks:
        if task.state != ENDED and not task.signals.mask & bit(number):
            recalculate(task)
            return


def _queued(process: Process) -> int:
    return len(process.signals.pending.queue) + sum(len(task.signals.pending.queue) for task in process.tasks)


def _queue_limit(process: Process) -> int:
    return min(process.limits.get(RLIMIT_SIGPENDING, (_MOST_QUEUED, 0))[0], _MOST_QUEUED)


def _is_ignored(process: Process, number: int) -> bool:
    """Whether a signal is lost at once. A blocked one is not: its action may be another when it is unblocked."""
    if any(bit(number) & (task.signals.mask | task.signals.waited_for) for task in process.tasks):
        return False
    return ignores(process.signals.action(number), number)


def ignores(action: Action, number: int) -> bool:
    """Whether the action is to do nothing."""
    return action.handler == SIG_IGN or (action.handler == SIG_DFL and bool(bit(number) & IGNORED))


def _flush(process: Process, mask: int) -> None:
    process.signals.pending.flush(mask)
    for task in process.tasks:
        task.signals.pending.flush(mask)


def recalculate(task: Task) -> None:
    """Set `attention` when there is a signal to deliver (the kernel's recalc_sigpending); a call it waits in ends."""
    signals = task.signals
    if (signals.pending.mask | task.process.signals.pending.mask) & ~signals.mask:
        signals.attention = True
        if task.state == WAITING:
            task.kernel.scheduler.interrupt(task)


def set_mask(task: Task, mask: int) -> None:
    """Block exactly `mask`, less the two signals that cannot be."""
    before, after = task.signals.mask, mask & ~UNBLOCKABLE
    task.signals.mask = after
    recalculate(task)
    shared = task.process.signals.pending.mask & after & ~before
    if shared and len(task.process.tasks) > 1:  # somebody else has to take them (kernel: retarget_shared_pending)
        for other in task.process.tasks:
            recalculate(other)


def set_action(process: Process, number: int, action: Action) -> None:
    """sigaction: a pending signal that the new action ignores is forgotten."""
    process.signals.actions[number] = action
    if ignores(action, number):
        _flush(process, bit(number))


def force(task: Task, info: SigInfo) -> None:
    """Send a signal that cannot be put off: blocked or ignored, it kills (the kernel's force_sig_info_to_task)."""
    number = info.number
    signals, shared = task.signals, task.process.signals
    blocked = signals.mask & bit(number)
    if blocked or shared.action(number).handler == SIG_IGN:
        shared.actions[number] = shared.action(number)._replace(handler=SIG_DFL)
        signals.mask &= ~bit(number)
    signals.pending.add(info)
    recalculate(task)


def force_fatal(task: Task, number: int) -> None:
    """Kill by `number` whatever the handler says."""
    shared = task.process.signals
    shared.actions[number] = shared.action(number)._replace(handler=SIG_DFL)
    force(task, from_kernel(number))


# ------------------------------------------------------------------------------------------------ exceptions

PAGE_FAULT = 14
PF_PROTECTION, PF_WRITE, PF_USER, PF_FETCH = 1, 2, 4, 16
_TASK_SIZE_MAX = 0x7FFF_FFFF_F000

# vector -> signal, si_code (0: SI_KERNEL, without an address), whether si_addr is the instruction's.
# arch/x86/kernel/traps.c; the floating-point vectors 16 and 19 work their code out.
_EXCEPTIONS = {
    0: (SIGFPE, FPE_INTDIV, True),
    3: (SIGTRAP, 0, False),
    4: (SIGSEGV, 0, False),
    5: (SIGSEGV, 0, False),
    6: (SIGILL, ILL_ILLOPN, True),
    10: (SIGSEGV, 0, False),
    11: (SIGBUS, 0, False),
    12: (SIGBUS, 0, False),
    13: (SIGSEGV, 0, False),
    17: (SIGBUS, BUS_ADRALN, False),
}
# fpu__exception_code: the bits of the status word (x87) or MXCSR that are set and not masked, in the kernel's order
_FLOATING = ((0x01, FPE_FLTINV), (0x04, FPE_FLTDIV), (0x08, FPE_FLTOVF), (0x12, FPE_FLTUND), (0x20, FPE_FLTRES))


def force_fault(task: Task, bad: BadAccess, error: int = PF_USER) -> None:
    """A page fault that memory could not resolve becomes SIGSEGV, SIGBUS or SIGKILL.

    `error` is the page fault's error code, without the bit for a present page, which the page table answers. An
    address that is not canonical is a general-protection fault to the CPU.
    """
    address = bad.address
    if not is_canonical(address):
        force_exception(task, 13, 0)
        return
    signals = task.signals
    # set_signal_archinfo; nothing is told about what is mapped in the kernel's half
    signals.trap_number = PAGE_FAULT
    present = address >= _TASK_SIZE_MAX or _was_present(task, bad)
    signals.error_code = error & ~PF_PROTECTION | PF_USER | (PF_PROTECTION if present else 0)
    signals.cr2 = address
    if bad.signal == SIGKILL:
        force_fatal(task, SIGKILL)
    else:
        force(task, from_fault(bad.signal, bad.code, address))


def _was_present(task: Task, bad: BadAccess) -> bool:
    """Whether the last fault found the page there.

    A fetch from a page that is not there but could be read is at first no access error (fault.c: access_error looks at
    the present bit): the page comes in, and the second fault is one of protection.
    """
    space = task.process.space
    if space.page_table.entry(bad.address) & PRESENT:
        return True
    vma = space.find(bad.address)
    return bad.access == EXEC and bad.code == SEGV_ACCERR and vma is not None and bool(vma.flags & PROTECTION)


def force_exception(task: Task, vector: int, error: int = 0) -> None:
    """An exception of the CPU other than a page fault, raised by the instruction at `task.context.pc`.

    `error`: the error code that came with it; for DEBUG, DR6.
    """
    signals = task.signals
    signals.trap_number = vector
    signals.error_code = 0 if vector == DEBUG else error
    if vector in (16, 19):
        code = floating_code(vector, task.context.save_fpu())
        if code:
            force(task, from_fault(SIGFPE, code, task.context.pc))
        return
    if vector == DEBUG:  # DR6 tells a single step from INT1
        force(task, from_fault(SIGTRAP, TRAP_TRACE if error & DEBUG_STEP else TRAP_BRKPT, task.context.pc))
        return
    number, code, located = _EXCEPTIONS.get(vector, (SIGSEGV, 0, False))
    if code:
        force(task, from_fault(number, code, task.context.pc if located else 0))
    else:
        force(task, from_kernel(number))


def floating_code(vector: int, image: bytes) -> int:
    """The si_code of a floating-point exception, from the FXSAVE image; 0 when none is unmasked."""
    if vector == 16:
        control, status = int.from_bytes(image[0:2], "little"), int.from_bytes(image[2:4], "little")
        raised = status & ~control
    else:
        mxcsr = int.from_bytes(image[24:28], "little")
        raised = mxcsr & ~(mxcsr >> 7)
    return next((code for mask, code in _FLOATING if raised & mask), 0)


def is_canonical(address: int) -> bool:
    """Whether bits 63 to 47 are equal, as 48-bit virtual addresses must be."""
    return address < 1 << 47 or address >= (1 << 64) - (1 << 47)


# ------------------------------------------------------------------------------------------------ delivery


def deliver(task: Task) -> None:
    """Do what `attention` asks for: run handlers, take default actions, settle an interrupted system call.

    Call it before the task goes on in user mode. Afterwards the task's registers are at the handler, or the process
    has ended.
    """
    signals = task.signals
    if task.process.stopped_by:
        task.state = STOPPED
        return
    signals.attention = False
    while (info := _dequeue(task)) is not None:
        number = info.number
        action = task.process.signals.action(number)
        if action.handler not in (SIG_DFL, SIG_IGN) and number != SIGKILL:
            _announce(task, info, "handler")
            _handle(task, info, action)
        elif ignores(action, number) or _stops_nobody(task, number):
            _announce(task, info, "ignored")
        else:
            _announce(task, info, "default")
            _default(task, info)
            return
    _restart_silently(task)
    if signals.saved_mask is not None:
        signals.mask, signals.saved_mask = signals.saved_mask, None
        recalculate(task)
        if signals.attention:
            deliver(task)


def _stops_nobody(task: Task, number: int) -> bool:
    """A stop from the terminal is ignored in an orphaned process group: nobody is there to continue it."""
    if not bit(number) & TERMINAL_STOPS:
        return False
    from loadstone.linux import jobs

    return jobs.is_orphaned(task.kernel, task.process.group)


def _dequeue(task: Task) -> SigInfo | None:
    return take(task, ~task.signals.mask)


def take(task: Task, mask: int) -> SigInfo | None:
    """Take a pending signal out of `mask`, blocked or not, without delivering it (sigtimedwait)."""
    own: TaskSignals = task.signals
    shared: ProcessSignals = task.process.signals
    return own.pending.take(mask) or shared.pending.take(mask)


def _announce(task: Task, info: SigInfo, action: str) -> None:
    subscribers = task.kernel.events.signal
    if subscribers:
        record = Signal(task.process.pid, task.tid, name(info.number), info.code, info.address, action)
        publish(subscribers, record)


def _default(task: Task, info: SigInfo) -> None:
    """The default action of a signal that is not ignored by default: stop or end the process."""
    if not bit(info.number) & STOPPING:
        if bit(info.number) & DUMPING and _dump_core(task, info):
            task.kernel.exit_process(task.process, ExitStatus(signal=info.number, core_dumped=True))
        else:
            task.kernel.kill_process(task.process, info)
        return
    from loadstone.linux import jobs

    jobs.stop(task.process, info.number)
    task.state = STOPPED
    task.signals.attention = True  # to be looked at again when it goes on


def _dump_core(task: Task, info: SigInfo) -> bool:
    from loadstone.linux.syscalls.machine import linux_of

    cores = linux_of(task).core_files
    return cores is not None and cores.dump(task, info)


# include/linux/errno.h, as in syscalls.registry
_ERESTARTSYS, _ERESTARTNOINTR, _ERESTART_RESTARTBLOCK = 512, 513, 516
_RESTART_SYSCALL = 219
_SYSCALL_LENGTH = 2
_EINTR = 4


def _handle(task: Task, info: SigInfo, action: Action) -> None:
    """A handler runs: settle the interrupted call, build the frame, change the mask (kernel: handle_signal)."""
    signals, shared = task.signals, task.process.signals
    number = info.number
    _settle_call(task, action)
    if action.flags & SA_RESETHAND:
        shared.actions[number] = action._replace(handler=SIG_DFL)
    try:
        leave_critical_section(task)
        _push_frame(task, info, action)
    except LinuxError:
        if number == SIGSEGV:
            force_fatal(task, SIGSEGV)
        else:
            force(task, from_kernel(SIGSEGV))
        return
    signals.saved_mask = None
    blocked = signals.mask | action.mask
    if not action.flags & SA_NODEFER:
        blocked |= bit(number)
    signals.mask = blocked & ~UNBLOCKABLE
    if signals.altstack[2] & SS_AUTODISARM:
        signals.altstack = (0, 0, SS_DISABLE)


def _settle_call(task: Task, action: Action) -> None:
    restart, task.signals.restart = task.signals.restart, None
    if restart is None:
        return
    kind, number = restart
    if kind == _ERESTARTNOINTR or (kind == _ERESTARTSYS and action.flags & SA_RESTART):
        _run_again(task, number)
    else:
        task.context.set_result(-_EINTR)


def _restart_silently(task: Task) -> None:
    """No handler ran: the call runs again, unseen by the program."""
    restart, task.signals.restart = task.signals.restart, None
    if restart is not None:
        kind, number = restart
        _run_again(task, _RESTART_SYSCALL if kind == _ERESTART_RESTARTBLOCK else number)


def _run_again(task: Task, number: int) -> None:
    task.context.set_result(number)
    task.context.pc -= _SYSCALL_LENGTH


# ------------------------------------------------------------------------------------------------ the frame

_FRAME_SIZE = 440
_RED_ZONE = 128
UC_FP_XSTATE, UC_SIGCONTEXT_SS, UC_STRICT_RESTORE_SS = 1, 2, 4
USER_CS, USER_SS = 0x33, 0x2B

_FRAME_TOP = Struct("<QQQQI")  # restorer, uc_flags, uc_link, ss_sp, ss_flags
_FRAME_MIDDLE = Struct("<Q18Q4H5Q")  # ss_size, registers, segments, err, trapno, oldmask, cr2, fpstate
_FRAME_MIDDLE_OFFSET, _FRAME_MASK_OFFSET, _FRAME_INFO_OFFSET = 40, 304, 312

_REGISTERS = (
    "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "rdi", "rsi", "rbp", "rbx", "rdx", "rax", "rcx", "rsp",
    "rip", "eflags",
)  # fmt: skip
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


def _push_frame(task: Task, info: SigInfo, action: Action) -> None:
    """Write the frame and point the registers at the handler. LinuxError when the stack cannot take it."""
    if not action.flags & SA_RESTORER:
        raise LinuxError(EINVAL, "x86-64 handlers need SA_RESTORER")
    context, signals, space = task.context, task.signals, task.process.space
    old_sp = context.sp
    frame, image = _place_frame(signals, old_sp, action, fpu_frame.size(context))
    copy_out(space, image, fpu_frame.save(context))
    mask = signals.mask if signals.saved_mask is None else signals.saved_mask
    start, size, flags = signals.altstack
    uc_flags = UC_SIGCONTEXT_SS | UC_STRICT_RESTORE_SS | (UC_FP_XSTATE if fpu_frame.has_xsave(context) else 0)
    copy_out(space, frame, _FRAME_TOP.pack(action.restorer, uc_flags, 0, start, flags))
    middle = _FRAME_MIDDLE.pack(
        size,
        *[context.read(register) for register in _REGISTERS],
        USER_CS, 0, 0, USER_SS,
        signals.error_code, signals.trap_number, mask, signals.cr2, image,
    )  # fmt: skip
    copy_out(space, frame + _FRAME_MIDDLE_OFFSET, middle)
    tail = mask.to_bytes(8, "little")
    if action.flags & SA_SIGINFO:
        tail += info.pack()
    copy_out(space, frame + _FRAME_MASK_OFFSET, tail)
    _enter_handler(task, info.number, action.handler, frame)


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


def _enter_handler(task: Task, number: int, handler: int, frame: int) -> None:
    context = task.context
    context.write("rdi", number)
    context.write("rax", 0)
    context.write("rsi", frame + _FRAME_INFO_OFFSET)
    context.write("rdx", frame + 8)
    context.sp = frame
    context.pc = handler
    context.write("eflags", context.read("eflags") & ~_CLEAR_EFLAGS)
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
    mask = int.from_bytes(copy_in(space, frame + _FRAME_MASK_OFFSET, 8), "little")
    top = copy_in(space, frame, _FRAME_TOP.size)
    _, uc_flags, _, start, flags = _FRAME_TOP.unpack(top)
    set_mask(task, mask)
    size, *values = _FRAME_MIDDLE.unpack(copy_in(space, frame + _FRAME_MIDDLE_OFFSET, _FRAME_MIDDLE.size))
    registers = dict(zip(_REGISTERS, values, strict=False))
    kept = context.read("eflags") & ~_FIX_EFLAGS
    registers["eflags"] = kept | registers["eflags"] & _FIX_EFLAGS
    for register, value in registers.items():
        context.write(register, value)
    code, _, _, stack = values[18:22]
    fpu_frame.load(context, space, values[26])
    signals.restart_block = None
    with suppress(LinuxError):  # the kernel does not look at the result either
        set_altstack(signals, context.sp, start, size, flags, MINSIGSTKSZ)
    if code | 3 != USER_CS or (uc_flags & UC_STRICT_RESTORE_SS and stack | 3 != USER_SS):
        force_exception(task, 13, (code if code | 3 != USER_CS else stack) & ~3)

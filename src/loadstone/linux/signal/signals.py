"""Signals: their numbers, what is told with them, what a process does with them, and which of them are pending.

How they are sent is in `sending`, what the CPU's exceptions become in `linux.exceptions`, and how they reach the
program in `delivery`.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, ClassVar

from loadstone.lean import NamedTuple
from loadstone.wait import WaitQueue

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from loadstone.kernel.process import Task

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
SI_USER, SI_KERNEL, SI_QUEUE, SI_TIMER, SI_MESGQ, SI_TKILL = 0, 0x80, -1, -2, -3, -6
ILL_ILLOPN = 2
FPE_INTDIV, FPE_FLTDIV, FPE_FLTOVF, FPE_FLTUND, FPE_FLTRES, FPE_FLTINV = 1, 3, 4, 5, 6, 7
SEGV_MAPERR, SEGV_ACCERR = 1, 2
BUS_ADRALN, BUS_ADRERR = 1, 2
TRAP_BRKPT, TRAP_TRACE = 1, 2
SYS_SECCOMP = 1

SIG_DFL, SIG_IGN = 0, 1
SA_NOCLDSTOP, SA_NOCLDWAIT, SA_SIGINFO = 1, 2, 4
SA_RESTORER, SA_ONSTACK, SA_RESTART, SA_NODEFER, SA_RESETHAND = 0x4000000, 0x8000000, 0x10000000, 0x40000000, 0x80000000
SA_EXPOSE_TAGBITS = 0x800
SA_IMMUTABLE = 0x800000  # of the kernel's own: no program changes the action, and no tracer hears of the signal
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

    def sent_by(self, pid: int, uid: int) -> SigInfo:
        """The same from another sender."""
        return self._replace(fields=_KILL.pack(pid, uid) + self.fields[_KILL.size :])

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


_ACTION = Struct("4Q")


class Actions:
    """What a process does with each signal.

    Attributes:
        table: four 64-bit words for each signal from 1 on, as in Action, which a core that answers rt_sigaction(2) by
            itself reads and changes.
        version: another one after each change that is made here.
    """

    __slots__ = ("table", "version")

    def __init__(self, table: memoryview | None = None) -> None:
        """As in `table`, without it everything is default."""
        content = bytearray(_ACTION.size * HIGHEST) if table is None else bytearray(table)
        self.table = memoryview(content).cast("Q")
        self.version = 0

    def __getitem__(self, number: int) -> Action:
        return Action(*_ACTION.unpack_from(self.table, _ACTION.size * (number - 1)))

    def __setitem__(self, number: int, action: Action) -> None:
        _ACTION.pack_into(self.table, _ACTION.size * (number - 1), *action)
        self.version += 1

    def copy(self) -> Actions:
        """The same, for another process."""
        return Actions(self.table)

    def handlers(self) -> list[int]:
        """The handlers of the signals from 1 on."""
        return self.table[:: len(Action._fields)].tolist()

    def ignored(self) -> list[int]:
        """The signals that are ignored."""
        handlers = self.handlers()
        if SIG_IGN not in handlers:  # nearly always
            return []
        return [number for number, handler in enumerate(handlers, 1) if handler == SIG_IGN]


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

    def remove(self, info: SigInfo) -> None:
        """Forget this very one, if it is there."""
        kept = [other for other in self.queue if other is not info]
        if len(kept) < len(self.queue):
            self.queue = kept
            if not any(other.number == info.number for other in kept):
                self.mask &= ~bit(info.number)

    def flush(self, mask: int) -> None:
        """Forget the signals in `mask`."""
        self.mask &= ~mask
        self.queue = [info for info in self.queue if not bit(info.number) & mask]


class ProcessSignals:
    """What the threads of a process share: the actions (the kernel's sighand) and the signals sent to all of them.

    `sent`: woken when a signal is sent to it, blocked or not, for those who wait for a signalfd.
    """

    __slots__ = ("actions", "pending", "sent")

    is_init: ClassVar[bool] = False  # whether SIGNAL_UNKILLABLE holds for it

    def __init__(self) -> None:
        self.actions = Actions()
        self.pending = PendingSet()
        self.sent = WaitQueue("a signal in a signalfd")

    def action(self, number: int) -> Action:
        """The action for a signal."""
        return self.actions[number]

    def exec(self) -> None:
        """execve: handlers are gone with the old image, ignored stays ignored (flush_signal_handlers)."""
        self.inherit_ignored(self)

    def inherit_ignored(self, other: ProcessSignals) -> None:
        """Ignore what `other` ignores; all other actions are the default ones."""
        ignored = other.actions.ignored()
        self.actions = Actions()
        self.ignore(ignored)

    def ignore(self, numbers: Iterable[int]) -> None:
        """Ignore these signals from now on."""
        for number in numbers:
            self.actions[number] = Action(SIG_IGN)


class InitSignals(ProcessSignals):
    """Those of the first process of a PID namespace, which dies of none that it does not handle."""

    __slots__ = ()

    is_init = True

    def __init__(self, before: ProcessSignals) -> None:
        super().__init__()
        self.actions = before.actions


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

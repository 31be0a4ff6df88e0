"""What killed a process: taken down at the moment the signal is delivered, while its address space is still there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from loadstone import events
from loadstone.lean import NamedTuple

if TYPE_CHECKING:
    from loadstone.observe.symbols import Symbolizer

# siginfo's si_code by signal (include/uapi/asm-generic/siginfo.h).
_CODES = {
    "SIGSEGV": {1: "SEGV_MAPERR", 2: "SEGV_ACCERR", 3: "SEGV_BNDERR", 4: "SEGV_PKUERR"},
    "SIGBUS": {1: "BUS_ADRALN", 2: "BUS_ADRERR", 3: "BUS_OBJERR"},
    "SIGFPE": dict(enumerate(("FPE_INTDIV", "FPE_INTOVF", "FPE_FLTDIV", "FPE_FLTOVF", "FPE_FLTUND", "FPE_FLTRES"), 1)),
    "SIGILL": {1: "ILL_ILLOPC", 2: "ILL_ILLOPN", 3: "ILL_ILLADR", 4: "ILL_ILLTRP", 5: "ILL_PRVOPC"},
    "SIGTRAP": {1: "TRAP_BRKPT", 2: "TRAP_TRACE"},
}
_PAGE_FAULT = 14
_ANY = {0: "SI_USER", 0x80: "SI_KERNEL", -1: "SI_QUEUE", -2: "SI_TIMER", -6: "SI_TKILL"}


def code_name(signal: str, code: int) -> str:
    """`SEGV_MAPERR` for (SIGSEGV, 1); "" for a code without a name."""
    return _ANY.get(code) or _CODES.get(signal, {}).get(code, "")


class Death(NamedTuple):
    """A signal that ended the process.

    `access` is read, write or execute for a page fault, else "". `pc` is the instruction it was delivered at.
    """

    signal: str
    code: int
    address: int
    pc: int
    access: str


class DeathWatch:
    """Subscribe it to the signal events of a machine: `death` is the last signal whose default action `process` took.

    `process` is a `loadstone.api.Process`. `symbols` describes its address space as it was then.
    """

    KINDS = ("signal",)

    def __init__(self, process: Any) -> None:
        self._process = process
        self.death: Death | None = None
        self.symbols: Symbolizer | None = None

    def __call__(self, record: events.Signal) -> None:
        """Look at one event."""
        if record.pid != self._process.pid or record.action != "default":
            return
        from loadstone.observe.space import symbolizer

        self.symbols = symbolizer(self._process.inner.space)
        task = next(task for task in self._process.inner.tasks if task.tid == record.tid)
        state = task.signals
        faulted = state.trap_number == _PAGE_FAULT and state.cr2 == record.address and record.code > 0
        self.death = Death(
            record.signal, record.code, record.address, task.context.pc, _access(state.error_code) if faulted else ""
        )


def _access(error_code: int) -> str:
    """What a page fault's error code (Intel SDM vol. 3, 4.7) says was tried."""
    return "execute" if error_code & 0x10 else "write" if error_code & 2 else "read"

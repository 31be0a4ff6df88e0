"""What killed a process: taken down at the moment the signal is delivered, while its address space is still there."""

from __future__ import annotations

from typing import Any, NamedTuple

from loadstone import events

# siginfo's si_code by signal (include/uapi/asm-generic/siginfo.h).
_CODES = {
    "SIGSEGV": {1: "SEGV_MAPERR", 2: "SEGV_ACCERR", 3: "SEGV_BNDERR", 4: "SEGV_PKUERR"},
    "SIGBUS": {1: "BUS_ADRALN", 2: "BUS_ADRERR", 3: "BUS_OBJERR"},
    "SIGFPE": dict(enumerate(("FPE_INTDIV", "FPE_INTOVF", "FPE_FLTDIV", "FPE_FLTOVF", "FPE_FLTUND", "FPE_FLTRES"), 1)),
    "SIGILL": {1: "ILL_ILLOPC", 2: "ILL_ILLOPN", 3: "ILL_ILLADR", 4: "ILL_ILLTRP", 5: "ILL_PRVOPC"},
    "SIGTRAP": {1: "TRAP_BRKPT", 2: "TRAP_TRACE"},
}
_ANY = {0: "SI_USER", 0x80: "SI_KERNEL", -1: "SI_QUEUE", -2: "SI_TIMER", -6: "SI_TKILL"}


def code_name(signal: str, code: int) -> str:
    """`SEGV_MAPERR` for (SIGSEGV, 1); "" for a code without a name."""
    return _ANY.get(code) or _CODES.get(signal, {}).get(code, "")


class Death(NamedTuple):
    """A signal that ended the process. `access` is read, write, execute, or "" where it was no page fault."""

    signal: str
    code: int
    address: int
    pc: int
    access: str
    maps: str


class DeathWatch:
    """Subscribe it to the signal events (and, where faults are observed anyway, the faults) of a machine.

    `death` is then the last signal whose default action the process took.
    """

    KINDS = ("signal",)

    def __init__(self, process: Any) -> None:
        self._process = process
        self._fault: events.Fault | None = None
        self.death: Death | None = None

    def __call__(self, record: Any) -> None:
        """Look at one event."""
        if record.pid != self._process.pid:
            return
        if type(record) is events.Fault:
            self._fault = record if record.signal else None
        elif type(record) is events.Signal and record.action == "default":
            self._note(record)

    def _note(self, record: events.Signal) -> None:
        fault = self._fault
        same = fault is not None and fault.signal == record.signal and fault.address == record.address
        pc = fault.pc if fault and same else int(self._process.registers["rip"])
        access = fault.access if fault and same else "execute" if record.address == pc and record.address else ""
        self.death = Death(record.signal, record.code, record.address, pc, access, self._process.maps)

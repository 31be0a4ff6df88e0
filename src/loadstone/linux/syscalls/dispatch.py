"""From a trap to a handler and back: decoding, errors, waiting, restarting, counting, tracing.

`SystemCalls.dispatch(task)` runs the call whose number and arguments are in the task's registers. A call that has to
wait comes back as `Pending`; the scheduler goes on with it through `resume` or `interrupt`.
"""

from __future__ import annotations

from errno import ENOSYS
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError, OutOfFrames, errno_name
from loadstone.events import Syscall, publish
from loadstone.linux import abi as tables
from loadstone.linux.futexes import Futexes
from loadstone.linux.refusals import AbsentError, count
from loadstone.linux.signal.restart import ERESTARTNOINTR, ERESTARTSYS, Restart
from loadstone.linux.signal.restart import NAMES as RESTART_NAMES
from loadstone.linux.syscalls.registry import Registry, SystemCall
from loadstone.linux.timers import Timers
from loadstone.memory.fault import PageWanted
from loadstone.wait import Interrupted

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadstone.events import Events
    from loadstone.kernel.process import Task
    from loadstone.linux.seccomp.notices import Asking
    from loadstone.linux.tracing.ptrace import StopWait, Tracing
    from loadstone.wait import Blocking, Wait

CALL_REGISTERS = ("rax", "rdi", "rsi", "rdx", "r10", "r8", "r9")  # number and arguments
# Told before they are carried out: afterwards there is nobody who made the call.
_WITHOUT_RETURN = ("exit", "exit_group")


class Pending:
    """A call that waits for `wait`. Its progress lives in the generator's locals."""

    __slots__ = ("generator", "registers", "row", "shown", "wait")

    def __init__(
        self, row: SystemCall, registers: tuple[int, ...], generator: Blocking, shown: list[str] | None
    ) -> None:
        self.row = row
        self.registers = registers
        self.generator = generator
        self.shown = shown  # the arguments as the trace shows them, as far as they are known before the call
        self.wait: Wait

    def close(self) -> None:
        """The task dies: let the handler clean up."""
        self.generator.close()


if TYPE_CHECKING:
    Held = Pending | StopWait | Asking
    """What a thread waits in when its call is not done."""


class SystemCalls:
    """The system calls of one machine, with what they counted.

    Attributes:
        unimplemented: calls that were answered with ENOSYS, by name.
        futexes, timers: what calls of different processes share.
        tracing: who is traced by whom; None while nobody ever was.
        hooked: whether anybody was ever traced, or filters calls: only then a call is looked at before it is made.
    """

    def __init__(self, events: Events, isa: str = "x86_64") -> None:
        self.registry = Registry(tables.load(isa))
        self.unimplemented: dict[str, int] = {}
        self.refused: dict[str, int] = {}  # what the guest may not do: sockets, mounts, typing on the terminal
        self.futexes = Futexes()
        self.timers = Timers()
        self.tracing: Tracing | None = None
        self.hooked = False
        self._events = events
        self._rows: dict[int, SystemCall] = {}

    @property
    def total(self) -> int:
        """How many calls were made."""
        return sum(row.calls for row in self.registry.used())

    def are_watched(self, task: Task) -> bool:
        """Whether each call of a thread is seen as it is made, by a listener, a tracer or a filter.

        Then a core may answer none of them by itself.
        """
        if self._events.syscall or self.tracing is not None:
            return True
        return self.hooked and task.personal is not None and bool(task.personal.seccomp_mode)

    def counts(self) -> dict[str, int]:
        """Calls by name, the most frequent first."""
        rows = sorted(self.registry.used(), key=lambda row: (-row.calls, row.number))
        return {row.name: row.calls for row in rows}

    def dispatch(self, task: Task) -> Held | None:
        """Run the call in `task`'s registers. None when it is done; its result is then in the registers.

        `OutOfFrames` passes through: it is not the call's to answer.
        """
        registers = task.context.system_call()
        row = self._rows.get(registers[0]) or self._row(registers[0])
        row.calls += 1
        if self._events.syscall or self.hooked:
            return self._enter(task, registers)
        if row.invoke is None:
            self._unknown(task, row, registers, None)
            return None
        try:
            result = row.invoke(task, registers)
        except LinuxError as error:
            self._fail(task, row, error)
            return None
        except (Restart, Interrupted) as restart:
            self._restart(task, row, registers, restart, None)
            return None
        except PageWanted as wanted:
            return self._wait_for_page(task, row, registers, wanted, None)
        except OutOfFrames:  # somebody will be killed for it; if that is another process, this one tries again
            self._restart(task, row, registers, Restart(ERESTARTNOINTR), None)
            raise
        if result.__class__ is int:
            task.context.set_result(result)
        elif result is not None:
            return self._advance(task, Pending(row, registers, result, None), None)
        return None

    def resume(self, task: Task, pending: Pending, reason: str) -> Pending | None:
        """Go on with a call whose wait is over. `reason`: WOKEN or TIMED_OUT."""
        return self._advance(task, pending, reason)

    def interrupt(self, task: Task, pending: Pending) -> Pending | None:
        """Tell a waiting call that a signal came; it ends, or (rarely) waits on."""
        return self._advance(task, pending, None, Interrupted())

    def _advance(
        self, task: Task, pending: Pending, reason: str | None, thrown: Interrupted | None = None
    ) -> Pending | None:
        row, registers, shown = pending.row, pending.registers, pending.shown
        generator = pending.generator
        try:
            if thrown is not None:
                pending.wait = generator.throw(thrown)
            elif reason is None:
                pending.wait = next(generator)
            else:
                pending.wait = generator.send(reason)
        except StopIteration as stop:
            self._finish(task, row, registers, stop.value, shown)
        except LinuxError as error:
            self._finish(task, row, registers, self._fail(task, row, error), shown)
        except (Restart, Interrupted) as restart:
            self._restart(task, row, registers, restart, shown)
        except PageWanted as wanted:
            return self._wait_for_page(task, row, registers, wanted, shown)
        except OutOfFrames:
            self._restart(task, row, registers, Restart(ERESTARTNOINTR), shown)
            raise
        else:
            return pending
        return None

    def _wait_for_page(
        self, task: Task, row: SystemCall, registers: tuple[int, ...], wanted: PageWanted, shown: list[str] | None
    ) -> Pending | None:
        """The call touched a page that a program brings by userfaultfd(2): it is made again when the page is there."""

        def wait() -> Blocking:
            yield from wanted.missing.file.wait_for(task, wanted.missing, interruptible=False)
            raise Restart(ERESTARTNOINTR)

        return self._advance(task, Pending(row, registers, wait(), shown), None)

    # -- calls that are looked at: by listeners to events, tracers (kernel: syscall_trace_enter), filters -------------

    def _enter(self, task: Task, registers: tuple[int, ...]) -> Held | None:
        """First a tracer has its turn, then the thread's filters; then the call is made."""
        if self.tracing is not None:
            stop = self.tracing.before_call(task, registers, lambda task: self._filter(task, self.made_of(task)))
            if stop is not None:
                return stop
        return self._filter(task, registers)

    def make_emulated(self, task: Task, registers: tuple[int, ...]) -> Held | None:
        """A call that no instruction made, in the order of CALL_REGISTERS: a tracer does not hear of it, filters do."""
        self._any_row(registers).calls += 1
        return self._filter(task, registers)

    def _filter(self, task: Task, registers: tuple[int, ...]) -> Held | None:
        if task.personal is None or not task.personal.seccomp_mode:
            return self.carry_out(task, registers)
        from loadstone.linux.seccomp.computing import compute

        return compute(self, task, registers)

    def made_of(self, task: Task) -> tuple[int, ...]:
        """The call in a traced thread's registers, which its tracer may have changed."""
        values = task.context.registers()
        registers = tuple(values[name] for name in CALL_REGISTERS)
        if self.tracing is not None:
            self.tracing.makes(task, registers)
        return registers

    def skip(self, task: Task, registers: tuple[int, ...], result: int) -> None:
        """A filter answers in the place of the call."""
        self._finish(task, self._any_row(registers), registers, result, None)

    def leave_out(self, task: Task, result: int) -> None:
        """The tracer of a thread answers in the place of the call."""
        task.context.set_result(result)
        if self.tracing is not None:
            self.tracing.after_call(task)

    def interrupted(self, task: Task, registers: tuple[int, ...]) -> None:
        """A signal came while a filter's listener was asked about the call: it is made again, or ends in EINTR."""
        self._restart(task, self._any_row(registers), registers, Interrupted(), None)

    def end_in_place(
        self, task: Task, registers: tuple[int, ...], status: int, end: Callable[[], None]
    ) -> StopWait | None:
        """A filter ends the thread in the place of the call; `status` as wait(2) has it."""
        return self._end(task, self._any_row(registers), registers, None, status, end)

    def _any_row(self, registers: tuple[int, ...]) -> SystemCall:
        return self._rows.get(registers[0]) or self._row(registers[0])

    def _end(
        self, task: Task, row: SystemCall, registers: tuple[int, ...], shown: list[str] | None, status: int,
        end: Callable[[], object],
    ) -> StopWait | None:  # fmt: skip
        """A call that does not return: it is told of before it is carried out, and a tracer has its stop."""
        if self._events.syscall:
            self._emit(task, row, registers, 0, shown, None)
        stop = self.tracing.before_end(task, status, end) if self.tracing is not None else None
        if stop is None:
            end()
        return stop

    def carry_out(self, task: Task, registers: tuple[int, ...]) -> Pending | StopWait | None:
        """Make a call that tracer and filters have let pass; one of number -1 is left out."""
        if self.tracing is not None:
            instead = self.tracing.left_out(task, registers)
            if instead is not None:
                self.leave_out(task, instead)
                return None
        return self._watched(task, self._any_row(registers), registers)

    def _watched(self, task: Task, row: SystemCall, registers: tuple[int, ...]) -> Pending | StopWait | None:
        """A call that somebody hears of: a listener to events, or a tracer."""
        shown = None
        if self._events.texts:
            from loadstone.linux import strace

            shown = strace.before(task, row, registers)
        if row.name in _WITHOUT_RETURN and row.invoke is not None:
            invoke, status = row.invoke, (registers[1] & 0xFF) << 8
            return self._end(task, row, registers, shown, status, lambda: invoke(task, registers))
        if row.invoke is None:
            self._unknown(task, row, registers, shown)
            return None
        try:
            result = row.invoke(task, registers)
        except LinuxError as error:
            result = self._fail(task, row, error)
        except (Restart, Interrupted) as restart:
            self._restart(task, row, registers, restart, shown)
            return None
        except PageWanted as wanted:
            return self._wait_for_page(task, row, registers, wanted, shown)
        except OutOfFrames:
            self._restart(task, row, registers, Restart(ERESTARTNOINTR), shown)
            raise
        if result is not None and result.__class__ is not int:
            return self._advance(task, Pending(row, registers, result, shown), None)
        self._finish(task, row, registers, result, shown)
        return None

    def _unknown(self, task: Task, row: SystemCall, registers: tuple[int, ...], shown: list[str] | None) -> None:
        self._finish(task, row, registers, self._fail(task, row, LinuxError(ENOSYS)), shown)

    def _fail(self, task: Task, row: SystemCall, error: LinuxError) -> int:
        """Set -errno. A call that does not exist here is counted, unless it is absent on purpose."""
        if error.errno == ENOSYS and not isinstance(error, AbsentError):
            count(self.unimplemented, row.name)
        task.context.set_result(-error.errno)
        return -error.errno

    def _finish(
        self, task: Task, row: SystemCall, registers: tuple[int, ...], result: int | None, shown: list[str] | None
    ) -> None:
        if result is not None:
            task.context.set_result(result)
        if self._events.syscall:
            self._emit(task, row, registers, result or 0, shown, None)
        if self.tracing is not None:
            self.tracing.after_call(task)

    def _restart(
        self,
        task: Task,
        row: SystemCall,
        registers: tuple[int, ...],
        restart: Restart | Interrupted,
        shown: list[str] | None,
    ) -> None:
        """Leave it to signal delivery whether the call runs again or ends in EINTR, as the kernel does."""
        kind = restart.kind if isinstance(restart, Restart) else ERESTARTSYS
        signals = task.signals
        signals.restart = (kind, registers[0])
        signals.attention = True
        if isinstance(restart, Restart) and restart.block is not None:
            signals.restart_block = restart.block
        if self._events.syscall:
            self._emit(task, row, registers, -kind, shown, RESTART_NAMES[kind])
        if self.tracing is not None:
            self.tracing.after_call(task)

    def _emit(
        self,
        task: Task,
        row: SystemCall,
        registers: tuple[int, ...],
        result: int,
        shown: list[str] | None,
        restart: str | None,
    ) -> None:
        pid, tid, cpu = task.process.pid, task.tid, task.cpu
        errno = restart
        if errno is None and -4096 < result < 0:
            errno = errno_name(-result)
        text, note = "", ("", "")
        if self._events.texts:
            from loadstone.linux import strace

            text = strace.after(task, row, registers, result, shown)
            note = strace.note(task, row, registers, result)
        restarted = restart is not None
        record = Syscall(pid, tid, cpu, row.number, row.name, registers[1:], result, errno, restarted, text, *note)
        publish(self._events.syscall, record)

    def _row(self, number: int) -> SystemCall:
        # do_syscall_64 takes the number as an int: the register's upper half does not count
        row = self.registry.row(number & 0xFFFF_FFFF)
        if row.number == number and row.invoke is not None:
            self._rows[number] = row
        return row

"""A whole run's page faults, Loadstone's beside the kernel's: the same sequence of (mode, page)?

The program runs four times: on the host to bring its files into the page cache, twice on the host to see whether the
kernel agrees with itself, and once in Loadstone. All four get the same arguments, environment, directory and limits,
and /dev/null as standard files; addresses are not randomised.

Each task (thread or child, in the order of creation) is a sequence of its own: the order between tasks is chance.
"""

from __future__ import annotations

import os
import re
import stat
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, NamedTuple

from loadstone.errors import HostError
from loadstone.verify.alignment import Alignment, align
from loadstone.verify.native_faults import KERNEL, USER, NativeRun, record_faults

if TYPE_CHECKING:
    from loadstone.api import Machine

PAGE = 4096
DEFAULT_FAULT_AROUND = 65536
"""fault_around_bytes of every kernel that nobody told otherwise (mm/memory.c)."""

_CORE_DUMPED = 0x80  # in waitpid's status
_CALLS_READ = 5_000  # system calls looked at for the files they name; programs look into /proc when they start
_OWN_FILE = re.compile(r'"(/(?:proc|sys)/[^"]*)"')

Key = tuple[str, int]  # mode, page
Progress = Callable[[str], None]


class Program(NamedTuple):
    """What both sides execute."""

    path: str
    argv: tuple[bytes, ...]
    envp: tuple[bytes, ...]
    cwd: str | None = None
    stack_limit: int | None = None


class FaultHere(NamedTuple):
    """One fault in Loadstone. `mapping` as /proc/PID/maps names it, "" for anonymous memory."""

    mode: str
    address: int
    pc: int
    task: int
    mapping: str


class RunHere(NamedTuple):
    """A whole run in Loadstone.

    Attributes:
        maps: /proc/PID/maps of the first process at its end. status: as waitpid gives it.
        refused: system calls that the host answers and Loadstone refuses.
        own_files: what the program looked for in /proc and /sys, which are the guest's own.
    """

    faults: tuple[FaultHere, ...]
    maps: str
    status: int
    engine: str
    fault_around: int
    page_cache: str
    refused: tuple[str, ...] = ()
    own_files: tuple[str, ...] = ()


class Difference(NamedTuple):
    """A fault that only one side has, or has at another place of the sequence.

    Attributes:
        kind: one of the KINDS. why: the reason as a sentence, "" where there is none that we know.
    """

    kind: str
    mode: str
    page: int
    pc: int
    task: int
    mapping: str
    why: str


ONLY_KERNEL, ONLY_HERE, MOVED, OTHER_MODE = "only the kernel", "only Loadstone", "another place", "another mode"
KINDS = (ONLY_KERNEL, ONLY_HERE, MOVED, OTHER_MODE)


class Comparison(NamedTuple):
    """The verdict on one program.

    Attributes:
        alignments: one for each task. repeatable: how far the kernel's two runs agree, 1.0 being all.
    """

    program: Program
    native: NativeRun
    here: RunHere
    alignments: tuple[Alignment, ...]
    repeatable: float
    differences: tuple[Difference, ...]

    @property
    def identical(self) -> bool:
        """Whether the sequences are the same."""
        return not self.distance

    @property
    def distance(self) -> int:
        """Insertions and deletions from one to the other."""
        return sum(one.distance for one in self.alignments)

    @property
    def exact(self) -> bool:
        """Whether `distance` is the least there is; else it may be less."""
        return all(one.exact for one in self.alignments)

    @property
    def prefix(self) -> int:
        """Faults of the first task before the first difference."""
        return self.alignments[0].prefix

    @property
    def agreement(self) -> float:
        """What is common to both, as a share of both together."""
        return agreement(self.alignments)

    @property
    def same_end(self) -> bool:
        """Whether the program ended in the same way."""
        return self.native.status & ~_CORE_DUMPED == self.here.status


def agreement(alignments: Sequence[Alignment]) -> float:
    """The share of what is common, over several sequences."""
    total = sum(sum(one.lengths) for one in alignments)
    return 2 * sum(one.matched for one in alignments) / total if total else 1.0


def modes(faults: Sequence[FaultHere] | Sequence[tuple[str, int, int, int]]) -> dict[str, int]:
    """How many in user and in kernel mode."""
    count = Counter(fault[0] for fault in faults)
    return {USER: count[USER], KERNEL: count[KERNEL]}


def compare(program: Program, machine: Machine, timeout: float | None, progress: Progress) -> Comparison:
    """Run the program on both sides and compare. The machine is used up.

    Raises:
        HostError: the host cannot record, or does not run the program, or puts it at random addresses.
        LinuxError: Loadstone does not execute it.
    """
    if _changes_identity(program.path):
        raise HostError(f"{program.path} is set-user-ID or set-group-ID: the host always randomises its addresses")
    progress("running on the host, for the page cache")
    warm = _record(program, timeout)
    for name in warm.files:
        _bring_in(name)
    progress("running on the host")
    native = _record(program, timeout)
    progress("running on the host again")
    again = _record(program, timeout)
    progress("running in Loadstone")
    here = run_here(program, machine)
    return judge(program, native, again, here)


def judge(program: Program, native: NativeRun, again: NativeRun, here: RunHere) -> Comparison:
    """Compare what was recorded. Without the kernel's own faults in `native`, ours are left out too."""
    ours = here.faults if native.kernel_mode else tuple(fault for fault in here.faults if fault.mode == USER)
    alignments = tuple(align(a, b) for a, b in _tasks(native.faults, ours))
    repeatable = agreement([align(a, b) for a, b in _tasks(native.faults, again.faults)])
    comparison = Comparison(program, native, here._replace(faults=ours), alignments, repeatable, ())
    if comparison.identical:
        return comparison
    from loadstone.verify.fault_differences import differences

    return comparison._replace(differences=tuple(differences(comparison, again)))


def _changes_identity(path: str) -> bool:
    try:
        return bool(os.stat(path).st_mode & (stat.S_ISUID | stat.S_ISGID))
    except OSError:
        return False  # execve will say why


def _record(program: Program, timeout: float | None) -> NativeRun:
    return record_faults(
        program.path, program.argv, program.envp,
        cwd=program.cwd, stack_limit=program.stack_limit, timeout=timeout,
    )  # fmt: skip


def _bring_in(path: str) -> None:
    """Have a file in the page cache whole, page by page, since only what is there is mapped around a fault.

    What was read in sequence lies in large folios, all of which one fault may map: the count would depend on the host's
    history. So the file is dropped and read anew without read-ahead, as far as nobody else has it mapped.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if stat.S_ISREG(os.fstat(fd).st_mode):
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
            while os.read(fd, 1 << 20):
                pass
    except OSError:
        pass  # a file system that does not let itself be read so: its pages are as they are
    finally:
        os.close(fd)


def _tasks(left: Sequence[NamedTuple], right: Sequence[NamedTuple]) -> Iterator[tuple[list[Key], list[Key]]]:
    """The two sequences of each task that either side has; at least one pair."""
    by_task = [split(left), split(right)]
    for task in range(max(1, *(max(tasks, default=0) + 1 for tasks in by_task))):
        yield by_task[0].get(task, []), by_task[1].get(task, [])


def split(faults: Sequence[NamedTuple]) -> dict[int, list[Key]]:
    """(mode, page) of each fault, by task."""
    found: dict[int, list[Key]] = {}
    for fault in faults:
        mode, address, _, task = fault[:4]
        found.setdefault(task, []).append((mode, address & -PAGE))
    return found


# ------------------------------------------------------------------------------------------------ our side


def run_here(program: Program, machine: Machine) -> RunHere:
    """Run the program in a machine, with /dev/null as standard files."""
    from loadstone.events import Fault, Syscall

    faults: list[Fault] = []
    looked_at: dict[str, None] = {}
    calls_left = _CALLS_READ

    def note_path(call: Syscall) -> None:
        nonlocal calls_left
        found = _OWN_FILE.search(call.text)
        if found:
            looked_at[found[1]] = None
        calls_left -= 1
        if not calls_left:  # writing calls out takes longer than making them
            machine.events.unsubscribe(note_path)

    machine.events.subscribe(faults.append, ("fault",))
    machine.events.subscribe(note_path, ("syscall",))
    with _standard_files_nowhere():
        process = machine.spawn(program.path, program.argv, program.envp, cwd=program.cwd)
        process.keep_memory()
        end = process.run()
    numbers = {tid: number for number, tid in enumerate(sorted({process.pid, *(fault.tid for fault in faults)}))}
    found = tuple(FaultHere(f.mode, f.address, f.pc, numbers[f.tid], f.mapping) for f in faults)
    if end.timed_out:
        raise HostError("it runs longer than --timeout in Loadstone")
    status = end.signal or end.code << 8
    return RunHere(
        found, process.maps, status, machine.engine, machine.fault_around, machine.page_cache_mode,
        tuple(sorted({**machine.refused, **machine.unimplemented})), tuple(looked_at),
    )  # fmt: skip


@contextmanager
def _standard_files_nowhere() -> Iterator[None]:
    """While the guest runs, our own standard files are /dev/null, since the guest gets them."""
    saved = {}
    nowhere = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    try:
        for fd in range(3):
            with suppress(OSError):
                saved[fd] = os.dup(fd)
            os.dup2(nowhere, fd)
        yield
    finally:
        for fd in range(3):
            if fd in saved:
                os.dup2(saved[fd], fd)
                os.close(saved[fd])
            else:
                os.close(fd)
        os.close(nowhere)

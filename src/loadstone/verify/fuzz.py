"""The differential fuzzer: mutated files through the kernel's execve and through Loadstone's, in parallel.

A mutant on the kernel's side is stopped before its first instruction and killed, so it can do no harm; and since an
exec touches no memory but the arguments and the tails it clears, however much a file asks for, no limit on the address
space is needed that would change verdicts.
"""

from __future__ import annotations

import os
import resource
import shutil
import signal
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from time import monotonic
from typing import NamedTuple

from loadstone.errors import HostError
from loadstone.verify.case import Case, remove, write
from loadstone.verify.case_text import render
from loadstone.verify.host_world import HostWorld
from loadstone.verify.kernel_side import NativeServer
from loadstone.verify.mutate import mutant
from loadstone.verify.seeds import seeds
from loadstone.verify.shrink import shrink
from loadstone.verify.verdict import Judged, judge, own_verdict

SLICE = 64  # mutants that share a world: an inode number must not come back while one lives
MOST_MILLISECONDS, MOST_BYTES = 50, 64 << 20  # what one mutant may cost Loadstone: CPU time, and memory beyond before
_MOST_CLASSES = 20  # of disagreements that are shrunk, some seconds each
_AGAIN = 2  # times that a mutant over the limit is timed again
_RESET_PEAK = b"5"  # proc_pid_clear_refs(5)


class Disagreement(NamedTuple):
    """One class of disagreement: how many mutants show it, and the smallest case found that does."""

    kind: str
    times: int
    numbers: tuple[int, ...]  # of the first few mutants
    case: Case
    differences: tuple[tuple[str, str, str], ...]  # (what, the kernel's, Loadstone's)


class Slice(NamedTuple):
    """What one slice of the mutants gave. Costs are of Loadstone's side."""

    verdicts: Counter[str]
    wrong: list[tuple[int, str]]  # (mutant, kind of disagreement)
    nanoseconds: int
    slowest: tuple[int, int]  # (nanoseconds of CPU time, mutant)
    largest: tuple[int, int]  # (bytes, mutant)
    too_slow: int
    too_large: int
    leaked: int  # frames that are still in use after all images were released


class Findings(NamedTuple):
    """What a run found."""

    seed: int
    seeds: int
    mutants: int
    verdicts: dict[str, int]
    disagreements: tuple[Disagreement, ...]
    tracebacks: int
    total: Slice
    seconds: float
    workers: int

    @property
    def wrong(self) -> int:
        """Mutants on which the two disagree."""
        return len(self.total.wrong)


def fuzz(
    count: int, seed: int, *, workers: int | None = None, progress: Callable[[int], object] = lambda done: None
) -> Findings:
    """Judge mutants 0 ... `count` - 1 of `seed`, in `workers` processes (default: one a CPU).

    `progress` is called with the number of mutants that are done. Raises HostError where the kernel cannot be asked.
    """
    from concurrent.futures import ProcessPoolExecutor, as_completed
    from multiprocessing import get_context

    start = monotonic()
    workers = workers or len(os.sched_getaffinity(0))
    starts = seeds()
    parts = []
    with (
        _work_directory() as base,
        ProcessPoolExecutor(workers, get_context("fork"), initializer=_begin, initargs=(starts, seed, base)) as pool,
    ):
        slices = [pool.submit(_run_slice, first, min(first + SLICE, count)) for first in range(0, count, SLICE)]
        try:
            for done in as_completed(slices):
                parts.append(done.result())
                progress(sum(part.verdicts.total() for part in parts))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
        total = _sum(parts)
        disagreements = _explained(total.wrong, starts, seed, base)
    return Findings(
        seed=seed,
        seeds=len(starts),
        mutants=count,
        verdicts=dict(sorted(total.verdicts.items())),
        disagreements=disagreements,
        tracebacks=sum("traceback" in kind for _, kind in total.wrong),
        total=total,
        seconds=monotonic() - start,
        workers=workers,
    )


def judge_alone(case: Case, base: str) -> Judged:
    """Both verdicts on one case, in a world and a directory of its own below `base`."""
    world = HostWorld()
    directory = tempfile.mkdtemp(dir=base)
    try:
        os.chmod(directory, 0o755)
        write(case, directory)
        return judge(case, world, directory)
    finally:
        world.close()
        shutil.rmtree(directory)


class _work_directory:  # noqa: N801 - used as a function
    """A directory that any user may enter, for as long as the `with` lasts."""

    def __enter__(self) -> str:
        place = os.path.realpath(tempfile.gettempdir())
        if place.split("/")[1] in ("dev", "proc", "sys"):
            raise HostError(f"{place} is a directory that the guest has of its own", "set TMPDIR to another one")
        self.path = tempfile.mkdtemp(prefix="loadstone-verify-")
        os.chmod(self.path, 0o755)
        return self.path

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.path, ignore_errors=True)


class _Worker:
    """What one worker process has: made when it starts, used for every slice."""

    def __init__(self, starts: Sequence[Case], seed: int, base: str) -> None:
        self.seeds, self.seed = starts, seed
        self.server = NativeServer()
        home = tempfile.mkdtemp(dir=base)
        os.chmod(home, 0o755)
        self.directories = [os.path.join(home, str(place)) for place in range(SLICE)]
        for directory in self.directories:
            os.mkdir(directory)
            os.chmod(directory, 0o755)

    def run_slice(self, first: int, end: int) -> Slice:
        """Judge mutants `first` ... `end` - 1."""
        world = HostWorld()
        cases = [mutant(self.seeds, self.seed, number) for number in range(first, end)]
        try:
            places = zip(range(first, end), cases, self.directories, strict=False)
            parts = [self._run_one(number, case, world, directory) for number, case, directory in places]
            usage = world.memory.usage()
            return _sum(parts)._replace(leaked=usage["page table"] + usage["anonymous"])
        finally:
            world.close()
            for case, directory in zip(cases, self.directories, strict=False):
                remove(case, directory)

    def _run_one(self, number: int, case: Case, world: HostWorld, directory: str) -> Slice:
        write(case, directory)
        before = _reset_peak()
        judged = judge(case, world, directory, self.server.ask)
        grown = max(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before, 0) if before else 0
        cost = judged.own.cost_ns
        for _ in range(_AGAIN):  # a CPU that others use too is slow at times: what counts is what it takes every time
            if cost > MOST_MILLISECONDS * 1_000_000:
                cost = min(cost, own_verdict(case, world, directory).cost_ns)
        return Slice(
            verdicts=Counter([judged.kernel.kind]),
            wrong=[(number, judged.kind)] if judged.differences else [],
            nanoseconds=cost,
            slowest=(cost, number),
            largest=(grown, number),
            too_slow=int(cost > MOST_MILLISECONDS * 1_000_000),
            too_large=int(grown > MOST_BYTES),
            leaked=0,
        )


_workers: list[_Worker] = []  # of this process: none, or one


def _begin(starts: Sequence[Case], seed: int, base: str) -> None:
    """Make a worker; what Loadstone imports late must not be the first mutant's cost. Ctrl-C is the parent's matter."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _workers.append(_Worker(starts, seed, base))
    for case in starts:
        judge_alone(case, base)


def _run_slice(first: int, end: int) -> Slice:
    return _workers[0].run_slice(first, end)


def _reset_peak() -> int:
    """Forget the peak of this process's memory; what it has now, in bytes. 0 where the host does not allow it."""
    try:
        with open("/proc/self/clear_refs", "wb", buffering=0) as file:
            file.write(_RESET_PEAK)
        with open("/proc/self/statm", "rb", buffering=0) as file:
            return int(file.read().split()[1]) * resource.getpagesize()
    except OSError:
        return 0


def _sum(parts: Sequence[Slice]) -> Slice:
    verdicts: Counter[str] = Counter()
    for part in parts:
        verdicts.update(part.verdicts)
    return Slice(
        verdicts=verdicts,
        wrong=sorted(one for part in parts for one in part.wrong),
        nanoseconds=sum(part.nanoseconds for part in parts),
        slowest=max((part.slowest for part in parts), default=(0, 0)),
        largest=max((part.largest for part in parts), default=(0, 0)),
        too_slow=sum(part.too_slow for part in parts),
        too_large=sum(part.too_large for part in parts),
        leaked=sum(part.leaked for part in parts),
    )


def _explained(
    wrong: Sequence[tuple[int, str]], starts: Sequence[Case], seed: int, base: str
) -> tuple[Disagreement, ...]:
    """Each class of disagreement, the commonest first, with its smallest mutant, shrunk."""
    classes: dict[str, list[int]] = {}
    for number, kind in wrong:
        classes.setdefault(kind, []).append(number)
    found = []
    for kind, numbers in sorted(classes.items(), key=lambda item: -len(item[1]))[:_MOST_CLASSES]:
        smallest = min((mutant(starts, seed, number) for number in numbers[:50]), key=lambda case: len(render(case)))
        case = shrink(smallest, lambda smaller, kind=kind: judge_alone(smaller, base).kind == kind)  # type: ignore[misc]
        found.append(Disagreement(kind, len(numbers), tuple(numbers[:5]), case, judge_alone(case, base).differences))
    return tuple(found)

"""Timing: whole processes one after the other in turn, and code inside a machine; medians."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

ENVIRONMENT = {"HOME": "/nonexistent", "LC_ALL": "C", "PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "TZ": "UTC"}
_QILING = "import sys; from qiling import Qiling; Qiling(sys.argv[1:], '/', verbose=0).run()"


def engines() -> dict[str, list[str]]:
    """What can run a program here: name -> the words that go before the program's.

    Qiling is used where this Python has it, or the one that the variable QILING_PYTHON names.
    """
    run = [sys.executable, "-m", "loadstone", "run", "--engine"]
    found = {"native": [], "loadstone": [*run, "unicorn", "--"]}
    if os.access("/dev/kvm", os.R_OK | os.W_OK):
        found["loadstone kvm"] = [*run, "kvm", "--"]
    qemu = shutil.which("qemu-x86_64") or shutil.which("qemu-x86_64-static")
    if qemu:
        found["qemu-user"] = [qemu]
    qiling = os.environ.get("QILING_PYTHON") or (sys.executable if importlib.util.find_spec("qiling") else "")
    if qiling:
        found["qiling"] = [qiling, "-c", _QILING]
    return found


@dataclass
class Sample:
    """Runs of one program on one engine. Times in seconds (`cpu`: user and system time), memory in bytes."""

    seconds: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    resident: int = 0
    status: int = 0
    digest: str = ""

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def cpu_least(self) -> float:
        return min(self.cpu)


def compare(
    program: Sequence[str],
    prefixes: Mapping[str, Sequence[str]],
    runs: int,
    *,
    consumer: Sequence[str] | None = None,
) -> dict[str, Sample]:
    """Run `program` on every engine in turn, `runs` times over: a slow minute of the host hits all of them.

    With `consumer`, standard output goes through a pipe to that native program, whose output is taken.
    """
    return compare_lines([program], prefixes, runs, consumer=consumer)[0]


def compare_lines(
    lines: Sequence[Sequence[str]],
    prefixes: Mapping[str, Sequence[str]],
    runs: int,
    *,
    consumer: Sequence[str] | None = None,
    limit: float = 600.0,
) -> list[dict[str, Sample]]:
    """Run every program on every engine in turn, `runs` times over; samples by engine, for each program.

    An engine that takes longer than `limit` seconds for a program does not run it again.
    """
    samples = [{name: Sample() for name in prefixes} for _ in lines]
    for _ in range(runs):
        for name, prefix in prefixes.items():
            for program, row in zip(lines, samples, strict=True):
                sample = row[name]
                if not sample.seconds or sample.seconds[-1] < limit:
                    _run_once([*prefix, *program], consumer, sample)
    return samples


def _run_once(words: list[str], consumer: Sequence[str] | None, sample: Sample) -> None:
    start = time.perf_counter()
    process = subprocess.Popen(
        words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=ENVIRONMENT
    )
    reader = None
    source = process.stdout
    assert source is not None
    if consumer:
        reader = subprocess.Popen(consumer, stdin=source, stdout=subprocess.PIPE, env=ENVIRONMENT)
        source.close()
        assert reader.stdout is not None
        source = reader.stdout
    digest = hashlib.blake2b()
    while piece := source.read(1 << 16):
        digest.update(piece)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = 0  # reaped here, for its resource usage
    if reader:
        reader.wait()
    sample.seconds.append(time.perf_counter() - start)
    sample.cpu.append(usage.ru_utime + usage.ru_stime)
    sample.resident = max(sample.resident, usage.ru_maxrss * 1024)
    sample.status, sample.digest = os.waitstatus_to_exitcode(status), digest.hexdigest()


def seconds_printed_by(module: str, *args: str, runs: int) -> float:
    """The median of what `python -m MODULE ARGS…` prints last: seconds that it measured itself."""
    found = []
    for _ in range(runs):
        done = subprocess.run(
            [sys.executable, "-m", module, *args], capture_output=True, text=True, env=ENVIRONMENT, check=False
        )
        if done.returncode:
            raise SystemExit(f"{module} {' '.join(args)}: {done.stderr.strip()[-500:]}")
        found.append(float(done.stdout.split()[-1]))
    return statistics.median(found)


def printed_by(module: str, *args: str) -> Any:
    """The JSON that `python -m MODULE ARGS…` prints."""
    line = [sys.executable, "-m", module, *args]
    return json.loads(subprocess.run(line, capture_output=True, text=True, env=ENVIRONMENT, check=True).stdout)


def median_call(function: Callable[[], object], runs: int) -> float:
    """Seconds that one call takes, after one call that does not count."""
    function()
    found = []
    for _ in range(runs):
        start = time.perf_counter()
        function()
        found.append(time.perf_counter() - start)
    return statistics.median(found)

"""What a host offers. Every check is a small function that finds out by looking, never by version guessing."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Callable
from typing import IO, NamedTuple

from loadstone.report.discarded import amount
from loadstone.report.paper import Column, Paper

OK, OPTIONAL, MISSING = "ok", "optional", "missing"
_MARKS = {OK: "ok", OPTIONAL: "-", MISSING: "MISSING"}


class Finding(NamedTuple):
    """One thing looked at. `state`: ok, optional (missing, and some feature with it), missing (nothing works)."""

    group: str
    what: str
    state: str
    found: str
    advice: str = ""


def examine() -> list[Finding]:
    """Look at everything."""
    return [check() for check in _CHECKS]


def print_findings(findings: list[Finding], stream: IO[str]) -> None:
    """One table a group, then what to do."""
    paper = Paper(stream)
    paper.title("What this host offers Loadstone")
    for group in dict.fromkeys(finding.group for finding in findings):
        paper.heading(group)
        rows = [(_MARKS[f.state], f.what, f.found) for f in findings if f.group == group]
        paper.table([Column("", fixed=True), Column("what", fixed=True), Column("found")], rows)
    advice = [finding for finding in findings if finding.advice]
    if advice:
        paper.heading("What to do")
        for finding in advice:
            paper.paragraph(f"{finding.what}: {finding.advice}")
    missing = [finding.what for finding in findings if finding.state == MISSING]
    paper.blank()
    verdict = f"Programs cannot be run here: {', '.join(missing)}." if missing else "Programs can be run here."
    paper.title(verdict)


_NEEDED, _CORES, _PROOFS, _LIMITS, _EXTRAS = "Needed", "CPU cores", "Asking the real kernel", "Limits", "Extras"


def _host() -> Finding:
    found = f"{platform.system()} {platform.release()}, {platform.machine()}"
    good = sys.platform == "linux" and platform.machine() == "x86_64"
    return Finding(_NEEDED, "host", OK if good else MISSING, found, "" if good else "use Linux on x86-64")


def _python() -> Finding:
    good = sys.version_info >= (3, 11)
    found = f"{platform.python_implementation()} {platform.python_version()}"
    return Finding(_NEEDED, "Python", OK if good else MISSING, found, "" if good else "use CPython 3.11 or later")


def _package(group: str, module: str, name: str, state: str, advice: str) -> Finding:
    from importlib.metadata import PackageNotFoundError, version
    from importlib.util import find_spec

    if find_spec(module) is None:
        return Finding(group, name, state, "not installed", advice)
    try:
        return Finding(group, name, OK, version(name))
    except PackageNotFoundError:
        return Finding(group, name, OK, "installed, version unknown")


def _unicorn() -> Finding:
    found = _package(_CORES, "unicorn", "unicorn", MISSING, "pip install 'unicorn>=2.1.4,<2.2'")
    if found.state != OK:
        return found
    try:
        from loadstone.machine.unicorn_library import library_path

        library_path()
    except Exception as error:
        return found._replace(state=MISSING, found=f"{found.found}, but {error}", advice="install the package again")
    return found


def _memfd() -> Finding:
    try:
        os.close(os.memfd_create("loadstone-doctor"))
    except (OSError, AttributeError) as error:
        return Finding(_NEEDED, "memfd", MISSING, str(error), "a kernel with memfd_create(2) is needed, 3.17 or later")
    return Finding(_NEEDED, "memfd", OK, "memfd_create works: physical memory is one of these")


def _kvm() -> Finding:
    from loadstone.errors import HostError
    from loadstone.machine.kvm_core import KvmCore
    from loadstone.machine.physical import PhysicalMemory

    if not os.path.exists("/dev/kvm"):
        return Finding(_CORES, "KVM", OPTIONAL, "no /dev/kvm")
    memory = PhysicalMemory(1 << 20)
    try:
        core = KvmCore(memory, lambda *_: None)
        cost = core.exit_cost()
        core.close()
    except HostError as error:
        return Finding(_CORES, "KVM", OPTIONAL, *map(str, error.args[:2]))
    finally:
        memory.close()
    flavour = " (paravirtual, kvm_pvm)" if os.path.isdir("/sys/module/kvm_pvm") else ""
    return Finding(_CORES, "KVM", OK, f"usable{flavour}; leaving the guest costs {cost / 1000:.0f} us")


def _auto() -> Finding:
    from loadstone.api import Machine

    with Machine(memory=16 << 20) as machine:
        return Finding(_CORES, "--engine auto", OK, f"{machine.engine}: {machine.engine_why}")


def _vdso() -> Finding:
    from loadstone.linux.exec.auxv import AT_SYSINFO_EHDR
    from loadstone.linux.profile import own_auxv, read_own_memory
    from loadstone.observe.object_file import BytesSource, NotAnObject, ObjectFile

    address = dict(own_auxv()).get(AT_SYSINFO_EHDR, 0)
    if not address:
        return Finding(_PROOFS, "vDSO", OPTIONAL, "the kernel gave this process none")
    try:
        found = ObjectFile(BytesSource(read_own_memory(address, 8192)))
    except (OSError, NotAnObject) as error:
        return Finding(_PROOFS, "vDSO", OPTIONAL, f"at {address:#x}, but not readable: {error}")
    names = sorted(symbol.name for symbol in found.symbols if symbol.name.startswith("__vdso_"))
    return Finding(_PROOFS, "vDSO", OK, f"recognised, {len(names)} functions: {', '.join(names)}")


def _profile() -> Finding:
    from loadstone.linux.profile import live_profile

    return Finding(_PROOFS, "kernel profile", OK, f"{live_profile().name}, read live")


def _ptrace() -> Finding:
    scope = _read("/proc/sys/kernel/yama/ptrace_scope")
    if scope == "3":
        advice = "verify and the native comparisons cannot be used while kernel.yama.ptrace_scope is 3"
        return Finding(_PROOFS, "ptrace", OPTIONAL, "switched off (ptrace_scope 3)", advice)
    return Finding(_PROOFS, "ptrace", OK, f"own children can be traced (ptrace_scope {scope or 'absent'})")


def _perf() -> Finding:
    text = _read("/proc/sys/kernel/perf_event_paranoid")
    if not text:
        return Finding(_PROOFS, "page-fault counter", OPTIONAL, "the kernel has no perf events")
    level = int(text)
    if os.geteuid() == 0 or level < 2:
        return Finding(_PROOFS, "page-fault counter", OK, f"user and kernel faults (perf_event_paranoid {level})")
    if level == 2:
        advice = "for the kernel's own faults too: run as root, or sysctl kernel.perf_event_paranoid=1"
        return Finding(_PROOFS, "page-fault counter", OK, "user faults only (perf_event_paranoid 2)", advice)
    advice = "sysctl kernel.perf_event_paranoid=2 lets faults be compared with the kernel's"
    return Finding(_PROOFS, "page-fault counter", OPTIONAL, f"closed (perf_event_paranoid {level})", advice)


def _memory() -> Finding:
    facts = dict(line.split(":", 1) for line in _read("/proc/meminfo").splitlines() if ":" in line)
    sizes = {name: int(text.split()[0]) * 1024 for name, text in facts.items() if text.split()[:1]}
    available = sizes.get("MemAvailable", 0)
    found = f"{amount(available)} available of {amount(sizes.get('MemTotal', 0))}"
    advice = "give the machine little: run --memory 64M" if available < 256 << 20 else ""
    return Finding(_LIMITS, "memory", OK, found, advice)


def _cpus() -> Finding:
    usable, present = len(os.sched_getaffinity(0)), os.cpu_count() or 1
    return Finding(_LIMITS, "CPUs", OK, f"{usable} of {present} may be used")


def _resource_limits() -> Finding:
    import resource as r

    names = (("stack", r.RLIMIT_STACK), ("open files", r.RLIMIT_NOFILE), ("address space", r.RLIMIT_AS))
    parts = []
    for name, number in names:
        soft, _ = r.getrlimit(number)
        size = "unlimited" if soft == r.RLIM_INFINITY else str(soft) if number == r.RLIMIT_NOFILE else amount(soft)
        parts.append(f"{name} {size}")
    bounded = r.getrlimit(r.RLIMIT_AS)[0] != r.RLIM_INFINITY
    advice = "ulimit -v bounds how much memory a machine can have; --memory must fit into it" if bounded else ""
    return Finding(_LIMITS, "resource limits", OK, ", ".join(parts), advice)


def _overcommit() -> Finding:
    mode = _read("/proc/sys/vm/overcommit_memory")
    words = {"0": "heuristic", "1": "always", "2": "never"}.get(mode, "unknown")
    return Finding(_LIMITS, "overcommit", OK, f"{words} (vm.overcommit_memory {mode or '?'})")


def _tool(name: str, use: str) -> Callable[[], Finding]:
    def check() -> Finding:
        path = shutil.which(name)
        return Finding(_EXTRAS, name, OK if path else OPTIONAL, path or f"not installed; {use}")

    return check


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""


_CHECKS: tuple[Callable[[], Finding], ...] = (
    _host,
    _python,
    _memfd,
    lambda: _package(_NEEDED, "rich", "rich", MISSING, "pip install rich"),
    _unicorn,
    _kvm,
    _auto,
    _profile,
    _vdso,
    _ptrace,
    _perf,
    _memory,
    _cpus,
    _resource_limits,
    _overcommit,
    lambda: _package(
        _EXTRAS, "capstone", "capstone", OPTIONAL, "pip install 'loadstone[disassembly]' names instructions"
    ),
    _tool("gcc", "the tests compile programs with it"),
    _tool("musl-gcc", "the tests compile programs with it"),
    _tool("gdb", "it opens the core files of run --core, and runs inside the machine"),
    _tool("qemu-x86_64", "the benchmarks compare with it"),
)

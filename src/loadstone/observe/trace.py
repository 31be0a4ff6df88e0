"""`--trace exec,fault,syscall,map,process`: one readable line for each event, while it happens.

openat(AT_FDCWD, "/etc/ld.so.cache", O_RDONLY|O_CLOEXEC) = 3
fault  read   7ffff7fe5a10  file, minor, +15 around    ld-linux-x86-64.so.2+0x1ba10   pc 7ffff7fe5a10
map    7ffff7fb4000-7ffff7fb6000 rw-p
exec   load_elf_binary       3. map the segments …
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import Any

from loadstone import events
from loadstone.observe.text import printable

KINDS = ("exec", "fault", "syscall", "map", "process")
_MORE = {"syscall": ("signal", "exit"), "process": ("fork", "program", "run", "wake", "exit")}


def event_kinds(kinds: tuple[str, ...]) -> tuple[str, ...]:
    """The kinds of event to subscribe to for those of KINDS.

    With system calls come the signals and exits that belong among them; `process` is who came into being, became
    which program, stayed on which CPU and was woken by whom.
    """
    wanted = [kind for kind in kinds if kind != "process"]
    for kind in kinds:
        wanted += [more for more in _MORE.get(kind, ()) if more not in wanted]
    return tuple(wanted)


class Tracer:
    """Subscribe it to a machine's events. Lines of other threads than the first one begin with their number."""

    def __init__(self, write: Callable[[str], object]) -> None:
        self._write = write
        self._first = 0

    def __call__(self, record: Any) -> None:
        """Write the line of one event."""
        tid = getattr(record, "tid", 0)
        if not self._first:
            self._first = tid
        mark = f"[pid {tid}] " if tid and tid != self._first else ""
        self._write(f"{mark}{line(record)}\n")


def line(record: Any) -> str:
    """The event on one line, without its process and without a newline. Safe for a terminal."""
    return printable(_LINES[type(record)](record))


def _fault(e: events.Fault) -> str:
    how = [e.cause, "major" if e.major else "minor"]
    if e.around:
        how.append(f"+{e.around} around")
    if e.mode == "kernel":
        how.append("in the kernel")
    if e.signal:
        how = [e.signal, *([] if e.mode == "user" else ["in the kernel"])]
    name = os.path.basename(e.mapping) or "[anonymous]"
    pc = f"  pc {e.pc:x}" if e.mode == "user" else ""
    return f"fault  {e.access:<7} {e.address:012x}  {', '.join(how):<28} {name}+{e.offset:#x}{pc}"


def _syscall(e: events.Syscall) -> str:
    call = e.text or f"{e.name}({', '.join(f'{value:#x}' for value in e.args)})"
    if e.errno in _RESTARTS:
        return f"{call} = ? {e.errno} ({_RESTARTS[e.errno]})"
    if e.errno:
        number = getattr(errno, e.errno, 0)
        return f"{call} = -1 {e.errno} ({os.strerror(number)})" if number else f"{call} = -1 {e.errno}"
    note = f" ({e.note})" if e.note else ""
    return f"{call} = {e.shown or _result(e.name, e.result)}{note}"


_RESTARTS = {
    "ERESTARTSYS": "To be restarted if SA_RESTART is set",
    "ERESTARTNOINTR": "To be restarted",
    "ERESTARTNOHAND": "To be restarted if no handler",
    "ERESTART_RESTARTBLOCK": "Interrupted by signal",
}


def _result(name: str, value: int) -> str:
    if name in ("exit", "exit_group"):
        return "?"  # it does not return
    if name in ("mmap", "mremap", "brk", "shmat") or value >= 1 << 32:
        return f"{value:#x}" if value else "0"
    return str(value)


def _map(e: events.Map) -> str:
    where = f" {e.offset:#x} {e.path}" if e.path else ""
    return f"{e.event:<6} {e.start:012x}-{e.end:012x} {e.perms}{where}"


def _exec(e: events.Exec) -> str:
    return f"exec   {e.function:<24} {e.text}"


def _switch(e: events.Switch) -> str:
    on = f" on {e.waits_for}" if e.waits_for else ""
    return f"switch {e.source} -> {e.target} on cpu {e.cpu}: {e.why}{on} after {e.work:,}"


def _signal(e: events.Signal) -> str:
    if e.text:
        return f"--- {e.signal} {e.text} ---"
    return f"--- {e.signal} code {e.code} address {e.address:#x}: {e.action} ---"


def _fork(e: events.Fork) -> str:
    return f"fork   {'thread' if e.thread else 'process'} {e.child} flags {e.flags:#x}"


def _run(e: events.Run) -> str:
    on = f" on {e.waits_for}" if e.waits_for else ""
    return f"run    {e.start / 1e6:.3f} ms to {e.end / 1e6:.3f} ms on CPU {e.cpu}, then {e.why}{on}"


def _wake(e: events.Wake) -> str:
    return f"wake   {e.time / 1e6:.3f} ms: {e.why}{f' by {e.by}' if e.by else ''}"


def _program(e: events.Program) -> str:
    return f"became {e.program}: {' '.join(e.arguments)}"


def _exit(e: events.Exit) -> str:
    return f"+++ killed by {e.signal} +++" if e.signal else f"+++ exited with {e.status} +++"


_LINES: dict[type, Callable[[Any], str]] = {
    events.Fault: _fault,
    events.Syscall: _syscall,
    events.Map: _map,
    events.Exec: _exec,
    events.Switch: _switch,
    events.Signal: _signal,
    events.Fork: _fork,
    events.Exit: _exit,
    events.Run: _run,
    events.Wake: _wake,
    events.Program: _program,
}

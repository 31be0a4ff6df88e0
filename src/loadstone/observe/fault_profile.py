"""What a run cost, counted from its events: page faults by object and kind, system calls."""

from __future__ import annotations

from collections import Counter
from typing import Any

from loadstone import events

CAUSES = ("file", "copy-on-write", "zero-page", "anonymous", "stack", "shared", "protection")
ANONYMOUS = "[anonymous]"
_PAGE = -4096


class ObjectFaults:
    """The faults of one object: a file, `[heap]`, `[stack]`, anonymous memory."""

    __slots__ = ("around", "by_cause", "kernel", "major", "minor", "name", "pages", "signals")

    def __init__(self, name: str) -> None:
        self.name = name
        self.by_cause: Counter[str] = Counter()
        self.major = 0
        self.minor = 0
        self.kernel = 0  # of major and minor: taken by the kernel on the program's behalf
        self.around = 0  # pages mapped beside the faulting ones
        self.signals = 0  # ended in a signal; in none of the other counts
        self.pages: set[int] = set()  # the distinct pages that faulted

    @property
    def total(self) -> int:
        """Faults that were resolved."""
        return self.major + self.minor


class FaultProfile:
    """Subscribe it to the events of KINDS.

    Attributes:
        objects: by mapping name, in the order of their first fault.
        calls: system calls by name.
        errors: those of them that failed, by (name, errno).
    """

    KINDS = ("fault", "syscall")

    def __init__(self) -> None:
        self.objects: dict[str, ObjectFaults] = {}
        self.calls: Counter[str] = Counter()
        self.errors: Counter[tuple[str, str]] = Counter()

    def __call__(self, record: Any) -> None:
        """Count one event."""
        kind = type(record)
        if kind is events.Fault:
            self._fault(record)
        elif kind is events.Syscall:
            self.calls[record.name] += 1
            if record.errno:
                self.errors[record.name, record.errno] += 1

    def _fault(self, e: events.Fault) -> None:
        name = e.mapping or ANONYMOUS
        entry = self.objects.get(name)
        if entry is None:
            entry = self.objects[name] = ObjectFaults(name)
        if e.signal:
            entry.signals += 1
            return
        entry.by_cause[e.cause] += 1
        entry.around += e.around
        entry.pages.add(e.address & _PAGE)
        if e.major:
            entry.major += 1
        else:
            entry.minor += 1
        if e.mode == "kernel":
            entry.kernel += 1

    @property
    def total(self) -> int:
        """Faults that were resolved, of all objects."""
        return sum(entry.total for entry in self.objects.values())

    def causes(self) -> list[str]:
        """The causes that occurred, in the order in which tables show them."""
        seen = {cause for entry in self.objects.values() for cause in entry.by_cause}
        return [cause for cause in CAUSES if cause in seen] + sorted(seen.difference(CAUSES))

    def call_errors(self, name: str) -> dict[str, int]:
        """How often the call `name` failed, by errno."""
        return {errno: count for (call, errno), count in self.errors.items() if call == name}

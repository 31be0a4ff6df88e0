"""The page in the docs that says which system calls there are, made from the registry."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadstone.linux import abi
from loadstone.linux.syscalls.registry import FULL, NOTHING, PARTIAL, Registry

if TYPE_CHECKING:
    from loadstone.linux.syscalls.registry import SystemCall

_HEAD = """\
# System calls

This page is made by `python -m loadstone.linux.syscalls`; a test compares it with the code.

Loadstone knows the names of all {total} system calls of {isa} Linux up to 6.18. {full} are complete, {partial} work in
part, as the note says. Any other call is answered with `ENOSYS`, always, and counted in the report at the end of a run.

| number | name | arguments | support | note |
|---:|---|---|---|---|
"""


def markdown(isa: str = "x86_64") -> str:
    """The page, as Markdown with a newline at its end."""
    rows = Registry(abi.load(isa)).all()
    known = [row for row in rows if row.function is not None]
    counts = {level: sum(row.support == level for row in known) for level in (FULL, PARTIAL, NOTHING)}
    head = _HEAD.format(total=len(rows), isa=isa.replace("_", "-"), full=counts[FULL], partial=counts[PARTIAL])
    missing = ", ".join(f"`{row.name}`" for row in rows if row.function is None)
    return head + "".join(map(_line, known)) + f"\n## Not implemented\n\n{missing}\n"


def _line(row: SystemCall) -> str:
    return f"| {row.number} | `{row.name}` | {', '.join(row.parameters)} | {row.support} | {row.note} |\n"

"""The line that says what a program wrote and the host did not get."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from loadstone.observe.text import printable


def amount(size: int) -> str:
    """`123 bytes`, `4.5 KiB`, `12 MiB`."""
    if size < 1024:
        return f"{size} byte{'' if size == 1 else 's'}"
    value = float(size)
    for unit in ("KiB", "MiB", "GiB", "TiB"):
        value /= 1024
        if value < 1024 or unit == "TiB":
            return f"{value:.1f} {unit}" if value < 10 else f"{value:.0f} {unit}"
    raise AssertionError


def short_amount(size: int) -> str:
    """`0`, `512`, `4K`, `1.5M`: the same for tables."""
    text = amount(size).replace(" bytes", "").replace(" byte", "").replace(".0 ", " ")
    return text.replace(" ", "").replace("iB", "")


def discarded_line(entries: Sequence[Any], keep: str) -> str:
    """One sentence for the `vfs.discard.Discarded` entries (path, bytes, kind), and the option that would keep them."""
    total = sum(entry.bytes for entry in entries)
    first = printable(entries[0].path)
    what = first if len(entries) == 1 else f"{len(entries)} files and directories, {first} the first of them"
    hint = f"; keep with {printable(keep)}" if keep else ""
    return f"discarded {what} ({amount(total)}){hint}"

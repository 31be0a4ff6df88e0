"""Which entries of an auxiliary vector describe the CPU core that runs instead of the host's CPU."""

from __future__ import annotations

from collections.abc import Sequence

from loadstone.linux.exec.auxv import name as auxv_name


def differing_line(entries: Sequence[tuple[int, int, int]]) -> str:
    """Which auxiliary vector entries describe the CPU core instead of the host's CPU."""
    if not entries:
        return "The auxiliary vector describes the CPU core, and the host's CPU would give the same."
    named = (f"{auxv_name(key)} {value:#x}, the host's {host:#x}" for key, value, host in entries)
    return f"The auxiliary vector describes the CPU core; entries that differ from the host's CPU: {'; '.join(named)}."

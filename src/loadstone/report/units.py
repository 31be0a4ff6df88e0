"""Quantities as people read them."""

from __future__ import annotations


def duration(nanoseconds: int) -> str:
    """`0`, `870 us`, `12.3 ms`, `1.24 s`, `125 s`: to two decimals at most, fewer as it grows."""
    if nanoseconds < 1000:
        return f"{nanoseconds} ns" if nanoseconds else "0"
    for size, unit in ((1_000, "us"), (1_000_000, "ms"), (1_000_000_000, "s")):
        value = nanoseconds / size
        if value < 999.5 or unit == "s":
            break
    digits = 0 if value >= 99.95 or unit == "us" else 1 if value >= 9.995 else 2
    return f"{value:.{digits}f} {unit}"

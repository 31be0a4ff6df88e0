"""How much one read of a file of records gives (fs/seq_file.c: seq_read_iter).

The kernel makes whole records into a buffer of one page, until it holds what was asked for or the next record does not
fit, and hands out what is in it. So a large read of /proc/self/maps returns less than 4,096 bytes, and what a small one
left in the buffer comes first the next time.
"""

from __future__ import annotations

import re
from bisect import bisect_right

_BUFFER = 4096

LINES, PARAGRAPHS = rb"\n", rb"\n\n"
SMAPS = rb"VmFlags:[^\n]*\n"


class RecordBuffer:
    """The buffer of an open file, as far as sizes go: `text` is what the file holds, `record` how each record ends."""

    __slots__ = ("_ends", "_filled")

    def __init__(self, text: bytes, record: bytes) -> None:
        self._ends = [match.end() for match in re.finditer(record, text)]
        if not self._ends or self._ends[-1] < len(text):
            self._ends.append(len(text))
        self._filled = 0  # how far into the text the buffer reaches

    def available(self, offset: int) -> int:
        """The most that a read at `offset` gives."""
        return self._fill(max(self._filled, offset), len(self._ends) * _BUFFER) - offset

    def taken(self, offset: int, length: int) -> None:
        """`length` bytes were read at `offset`."""
        if offset + length > self._filled:
            start = max(self._filled, offset)
            self._filled = self._fill(start, offset + length - start)

    def _fill(self, start: int, wanted: int) -> int:
        """Where the records end that go into an empty buffer: at least one, however large, if there is one."""
        ends = self._ends
        at = min(bisect_right(ends, start), len(ends) - 1)
        size = _BUFFER
        while ends[at] - start >= size:
            size *= 2
        while at + 1 < len(ends) and ends[at] - start < wanted and ends[at + 1] - start < size:
            at += 1
        return max(start, ends[at])

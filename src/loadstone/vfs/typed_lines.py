"""What was typed at a terminal and not read yet, in lines. Source: drivers/tty/n_tty.c."""

from __future__ import annotations


class TypedLines:
    """Bytes that were typed. Those up to the last end of a line can be read as lines; the rest is still being edited.

    Attributes:
        typed: all of them.
        ends: the positions in `typed` of the bytes that end lines; of these, a 0 is an end of file and not data.
        readable: how many bytes there are up to the last end of a line (canon_head).
    """

    __slots__ = ("ends", "readable", "typed")

    def __init__(self) -> None:
        self.typed = bytearray()
        self.ends: list[int] = []
        self.readable = 0

    @property
    def editable(self) -> int:
        """How many bytes the line that is being typed has."""
        return len(self.typed) - self.readable

    def available(self) -> int:
        """The bytes of all lines; an end of file is none."""
        marks = sum(1 for at in self.ends if not self.typed[at])
        return self.readable - marks

    def end_line(self, byte: int) -> None:
        """The byte ends the line; 0 is an end of file."""
        self.ends.append(len(self.typed))
        self.typed.append(byte)
        self.readable = len(self.typed)

    def release(self) -> None:
        """Lines begin or end to count: what was typed so far can be read, as one line."""
        self.readable = len(self.typed)
        self.ends = [self.readable - 1] if self.typed else []

    def take_line(self, count: int) -> bytes:
        """Up to `count` bytes of the first line; b"" is an end of file."""
        end = self.ends[0] if self.ends else self.readable
        if end >= count:
            # What has just filled the reader's buffer takes a following end of file with it (canon_skip_eof).
            skipped = end == count and end in self.ends and not self.typed[end]
            return self.take(min(count, self.readable), 1 if skipped else 0)
        is_mark = end < self.readable and not self.typed[end]
        return self.take(end, 1) if is_mark else self.take(min(end + 1, self.readable), 0)

    def take(self, count: int, marks: int = 0) -> bytes:
        """The first `count` bytes, wherever lines end; the `marks` bytes behind them go too."""
        data = bytes(self.typed[:count])
        gone = count + marks
        del self.typed[:gone]
        self.readable = max(0, self.readable - gone)
        self.ends = [at - gone for at in self.ends if at >= gone]
        return data

    def clear(self) -> None:
        """Throw everything away."""
        self.typed.clear()
        self.ends.clear()
        self.readable = 0

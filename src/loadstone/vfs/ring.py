"""What a pipe holds: bytes, in a ring of buffers that are a page at most. Source: fs/pipe.c, fs/splice.c.

The bytes are in one array; a `Buffer` says how many of them it has. That is what decides how much more fits: a byte
written alone takes a buffer to itself unless it can be merged with the last one.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from loadstone.vfs.regular import before, scatter

if TYPE_CHECKING:
    from collections.abc import Sequence

PAGE: Final = 4096
DEFAULT_BUFFERS: Final = 16  # PIPE_DEF_BUFFERS


class Buffer:
    """`length` bytes that end at offset `end` of their page. `packet`: they were written at once with O_DIRECT."""

    __slots__ = ("end", "length", "mergeable", "packet")

    def __init__(self, length: int, end: int, mergeable: bool, packet: bool = False) -> None:
        self.length = length
        self.end = end
        self.mergeable = mergeable
        self.packet = packet


class Ring:
    """The buffers between writers and readers, `most` of them at most."""

    __slots__ = ("buffers", "data", "most")

    def __init__(self) -> None:
        self.data = bytearray()
        self.buffers: deque[Buffer] = deque()
        self.most = DEFAULT_BUFFERS

    def __len__(self) -> int:
        """Bytes that can be read."""
        return len(self.data)

    @property
    def full(self) -> bool:
        """Whether no buffer is free (pipe_full)."""
        return len(self.buffers) >= self.most

    def clear(self) -> None:
        """Forget everything."""
        self.data.clear()
        self.buffers.clear()

    def put(self, pieces: Sequence[memoryview], wanted: int, packet: bool) -> int:
        """Append up to `wanted` bytes: what is more than whole pages to the last buffer if it fits (pipe_write)."""
        buffers = self.buffers
        odd = wanted % PAGE
        done = 0
        if odd and buffers and buffers[-1].mergeable and buffers[-1].end + odd <= PAGE:
            buffers[-1].length += odd
            buffers[-1].end += odd
            done = odd
        left = min(wanted - done, max(0, self.most - len(buffers)) * PAGE)
        done += left
        while left > 0:
            part = min(left, PAGE)
            buffers.append(Buffer(part, part, not packet, packet))
            left -= part
        for piece in before(pieces, done):
            self.data += piece
        return done

    def take(self, pieces: Sequence[memoryview], wanted: int) -> int:
        """Move up to `wanted` bytes into the pieces; of a packet the rest is lost, and it ends the read (pipe_read)."""
        buffers = self.buffers
        count = lost = 0
        while buffers and count < wanted:
            first = buffers[0]
            part = min(first.length, wanted - count)
            count += part
            if first.packet:
                lost = first.length - part
                buffers.popleft()
                break
            if part < first.length:
                first.length -= part
                break
            buffers.popleft()
        with memoryview(self.data) as source, source[:count] as part_of:
            scatter(before(pieces, count), part_of)
        del self.data[: count + lost]
        return count

    def put_pages(self, data: memoryview, offset: int) -> int:
        """Append bytes that lie at `offset` of a file or of memory, cut at its pages, never merged; bytes taken."""
        done = 0
        while done < len(data) and not self.full:
            start = (offset + done) % PAGE
            part = min(PAGE - start, len(data) - done)
            self.buffers.append(Buffer(part, start + part, False))
            done += part
        self.data += data[:done]
        return done

    def room_for_pages(self, offset: int) -> int:
        """How many bytes from `offset` on put_pages takes."""
        free = self.most - len(self.buffers)
        return free * PAGE - offset % PAGE if free > 0 else 0

    def move(self, target: Ring, count: int) -> int:
        """Move whole buffers, and of the last one a part, to another ring; bytes moved (splice_pipe_to_pipe)."""
        done = 0
        while done < count and self.buffers and not target.full:
            first = self.buffers[0]
            part = min(first.length, count - done)
            if part == first.length:
                target.buffers.append(self.buffers.popleft())
            else:
                target.buffers.append(Buffer(part, first.end - first.length + part, False, first.packet))
                first.length -= part
            done += part
        target.data += self.data[:done]
        del self.data[:done]
        return done

    def copy(self, target: Ring, count: int) -> int:
        """Let another ring have the same buffers, `count` bytes at most (link_pipe)."""
        done = 0
        for one in self.buffers:
            if done >= count or target.full:
                break
            part = min(one.length, count - done)
            target.buffers.append(Buffer(part, one.end - one.length + part, False, one.packet))
            done += part
        target.data += self.data[:done]
        return done

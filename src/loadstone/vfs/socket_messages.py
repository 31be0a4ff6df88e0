"""What lies in the queues of sockets, and what it is charged. Sources: net/core/skbuff.c, net/core/scm.c."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from loadstone.lean import NamedTuple

if TYPE_CHECKING:
    from loadstone.vfs.file import OpenFile
    from loadstone.vfs.inet_ports import Endpoint
    from loadstone.vfs.sockets import Socket

_PAGE: Final = 4096
_SKB, _SHARED_INFO = 256, 320  # struct sk_buff and struct skb_shared_info, as they are allocated
_MAX_HEAD: Final = _PAGE - _SHARED_INFO  # SKB_MAX_HEAD(0)
_MAX_ALLOC: Final = 4 * _PAGE - _SHARED_INFO  # SKB_MAX_ALLOC
_MAX_FRAGMENTS: Final = 17  # MAX_SKB_FRAGS
MOST_OF_STREAM: Final = _MAX_HEAD + 8 * _PAGE  # a stream is cut into messages of this many bytes


class Who(NamedTuple):
    """A process as SO_PEERCRED and SCM_CREDENTIALS show it."""

    pid: int = 0
    uid: int = 0xFFFFFFFF
    gid: int = 0xFFFFFFFF


class Extra(NamedTuple):
    """What goes along with a message: open files (SCM_RIGHTS), and who sent it if somebody wants to know."""

    rights: tuple[OpenFile, ...] = ()
    who: Who | None = None


NOTHING = Extra()


class Message:
    """Bytes in a receiver's queue, from `start` on. `cost`: what the sender is charged for them."""

    __slots__ = ("cost", "data", "extra", "sender", "start")

    def __init__(self, data: bytes, sender: Socket, extra: Extra, cost: int) -> None:
        self.data = data
        self.start = 0
        self.sender = sender
        self.extra = extra
        self.cost = cost
        sender.charged += cost
        for file in extra.rights:
            file.hold()

    def take_rights(self, peek: bool) -> tuple[OpenFile, ...]:
        """The open files, for a receiver who closes them; with `peek` the message keeps its own."""
        rights = self.extra.rights
        if not peek:
            self.extra = self.extra._replace(rights=())
        elif rights:
            for file in rights:
                file.hold()
        return rights

    def __len__(self) -> int:
        return len(self.data) - self.start

    def discard(self) -> None:
        """It was received, or never will be."""
        self.sender.relieve(self.cost)
        for file in self.extra.rights:
            file.close()


class Received(NamedTuple):
    """What a call got: bytes copied, the message's whole length, who sent it (for UDP: from where), what came with it.

    The open files in `extra` are held for the receiver, who closes them.
    """

    copied: int
    length: int = 0
    sender: Socket | None = None
    extra: Extra = NOTHING
    source: Endpoint | None = None


def _allocated(size: int) -> int:
    """What a buffer with `size` bytes in one piece takes: the allocator hands out powers of two."""
    return _SKB + max(512, 1 << (size + _SHARED_INFO - 1).bit_length())


def _pages(size: int) -> int:
    return -(-size // _PAGE) * _PAGE


def stream_cost(size: int) -> int:
    """What `size` bytes of a stream are charged (unix_stream_sendmsg)."""
    in_pages = min(size, _pages(max(0, size - _MAX_HEAD)))
    return _allocated(size - in_pages) + _pages(in_pages)


def message_cost(size: int) -> int:
    """What a message of `size` bytes is charged (unix_dgram_sendmsg)."""
    in_pages = _pages(min(max(0, size - _MAX_ALLOC), _MAX_FRAGMENTS * _PAGE))
    return _allocated(max(0, size - in_pages)) + in_pages

"""Who waits on which word of user memory (kernel/futex/core.c). One object for the whole machine."""

from __future__ import annotations

from loadstone.wait import WaitQueue

Key = tuple[object, int]
"""A private futex: address space and address. A shared one: the mapped file and the offset in it."""


class Waiter:
    """One task in FUTEX_WAIT."""

    __slots__ = ("bitset", "key", "queue", "woken")

    def __init__(self, key: Key, bitset: int, address: int) -> None:
        self.key = key
        self.bitset = bitset
        self.queue = WaitQueue(f"futex {address:#x}")
        self.woken = False


class Futexes:
    """Who waits on which word, in the order in which they came. One for the whole machine."""

    __slots__ = ("_waiters",)

    def __init__(self) -> None:
        self._waiters: dict[Key, list[Waiter]] = {}

    def add(self, waiter: Waiter) -> None:
        """Begin to wait."""
        self._waiters.setdefault(waiter.key, []).append(waiter)

    def remove(self, waiter: Waiter) -> None:
        """Wait no longer; nothing happens if it was woken already."""
        waiters = self._waiters.get(waiter.key)
        if waiters and waiter in waiters:
            waiters.remove(waiter)
            if not waiters:
                del self._waiters[waiter.key]

    def take(self, key: Key, count: int, bitset: int) -> list[Waiter]:
        """Take up to `count` waiters whose bits meet `bitset` off the list."""
        waiters = self._waiters.get(key, [])
        taken = [waiter for waiter in waiters if waiter.bitset & bitset][:count]
        for waiter in taken:
            self.remove(waiter)
        return taken

    def move(self, key: Key, target: Key, count: int) -> int:
        """Let up to `count` waiters wait on another word."""
        moved = self._waiters.get(key, [])[:count]
        for waiter in moved:
            self.remove(waiter)
            waiter.key = target
            self.add(waiter)
        return len(moved)

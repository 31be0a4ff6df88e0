"""Interest lists: what epoll_create(2) gives. Source: fs/eventpoll.c.

An interest listens on the wait queues of its file. When something happens there, it goes to the end of its list's ready
items, once; whoever waits takes them from the front, asks each file what holds now, and drops those with nothing to
tell. Edge-triggered and one-shot interests then wait for the next thing to happen; all others go to the end again.
Files of the host have no queues of ours: an epoll descriptor of the host listens to them.
"""

from __future__ import annotations

from collections import deque
from errno import EEXIST, EFAULT, ELOOP, ENOENT
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.linux.anon_inodes import AnonymousFile
from loadstone.vfs.flags import POLLERR, POLLHUP, POLLIN, POLLOUT, POLLRDNORM
from loadstone.wait import WaitQueue

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from loadstone.linux.host_edges import HostEdges
    from loadstone.vfs.file import OpenFile
    from loadstone.vfs.vfs import Vfs

    Deliver = Callable[[int, int, int], None]
    """Told (position, events, data) of one event; LinuxError if the user cannot be told."""

EPOLLEXCLUSIVE, EPOLLWAKEUP, EPOLLONESHOT, EPOLLET = 1 << 28, 1 << 29, 1 << 30, 1 << 31
PRIVATE = EPOLLEXCLUSIVE | EPOLLWAKEUP | EPOLLONESHOT | EPOLLET  # EP_PRIVATE_BITS: how to tell, not what
ALWAYS = POLLERR | POLLHUP
DIRECTIONS = POLLIN | POLLOUT  # EPOLLINOUT_BITS
MAX_NESTS = 4  # EP_MAX_NESTS


class Interest:
    """What is wanted of one descriptor (the kernel's struct epitem). `linked`: it is among the ready items."""

    __slots__ = ("data", "events", "exclusive", "fd", "file", "linked", "list", "queues")

    def __init__(self, where: EpollFile, file: OpenFile, fd: int, events: int, data: int) -> None:
        self.list = where
        self.file = file
        self.fd = fd
        self.events = events | ALWAYS
        self.data = data
        self.exclusive = bool(events & EPOLLEXCLUSIVE)
        self.queues = file.queues()  # of a signalfd, those of the process that adds it
        self.linked = False

    def occurred(self) -> int:
        """The wanted events that hold now (ep_item_poll)."""
        return self.file.ready() & self.events

    def happened(self, events: int) -> bool:
        """Something happened to the file (ep_poll_callback); whether a task that waits was woken for it."""
        if not self.events & ~PRIVATE or (events and not events & self.events):
            return False
        woke = self.list.arrived(self)
        if not self.exclusive:
            return woke
        directions = events & DIRECTIONS
        return woke and (not directions or (directions != DIRECTIONS and bool(directions & self.events)))

    def file_closed(self) -> None:
        """The last descriptor of the file is closed."""
        self.list.drop(self)


class Arrivals(WaitQueue):
    """Those who wait in epoll_wait(2); what they wait for is what their interests are in."""

    __slots__ = ("_list",)

    def __init__(self, where: EpollFile) -> None:
        super().__init__("")
        self._list = where

    def describe(self) -> None:
        """Say what is waited for, for a person."""
        queues = [queue.what for one in self._list.interests.values() for queue in one.queues]
        self.what = " or ".join(dict.fromkeys(queues)) or "an epoll list without interests"


class EpollFile(AnonymousFile):
    """An interest list.

    Attributes:
        interests: by the open file and the descriptor it was added as; both, because either may be used again.
        arrivals: woken, one waiter at a time, when an item gets ready.
    """

    __slots__ = ("_edges", "_ready", "arrivals", "interests")

    kind = "eventpoll"

    def __init__(self, vfs: Vfs) -> None:
        super().__init__(vfs, 0)
        self.interests: dict[tuple[OpenFile, int], Interest] = {}
        self.arrivals = Arrivals(self)
        self.read_queue: WaitQueue = WaitQueue("an event in an epoll list")
        self._ready: deque[Interest] = deque()
        self._edges: HostEdges | None = None

    # The list

    def find(self, file: OpenFile, fd: int) -> Interest:
        """The interest in a descriptor; ENOENT."""
        found = self.interests.get((file, fd))
        if found is None:
            raise LinuxError(ENOENT)
        return found

    def add(self, file: OpenFile, fd: int, events: int, data: int) -> None:
        """EPOLL_CTL_ADD; EEXIST, ELOOP; EPERM for what the host cannot wait for."""
        if isinstance(file, EpollFile):
            _demand_shallow(self, file)
        if (file, fd) in self.interests:
            raise LinuxError(EEXIST)
        made = Interest(self, file, fd, events, data)
        self.interests[file, fd] = made
        file.file_interests = (*file.file_interests, made)
        for queue in made.queues:
            queue.listen(made)
        if file.host_fd() >= 0:
            self._listen_to_host(made)
        if made.occurred() and not made.linked:
            self.arrived(made)

    def modify(self, interest: Interest, events: int, data: int) -> None:
        """EPOLL_CTL_MOD: what holds already is told again."""
        interest.events, interest.data = events | ALWAYS, data
        if self._edges is not None:
            self._edges.modify(interest)
            self.harvest()
        if interest.occurred() and not interest.linked:
            self.arrived(interest)

    def drop(self, interest: Interest) -> None:
        """EPOLL_CTL_DEL, or one of the two files is gone."""
        file = interest.file
        del self.interests[file, interest.fd]
        file.file_interests = tuple(one for one in file.file_interests if one is not interest)
        for queue in interest.queues:
            queue.unlisten(interest)
        if self._edges is not None:
            self._edges.remove(interest)
        if interest.linked:
            self._ready.remove(interest)
            interest.linked = False

    def release(self) -> None:
        """The list's last descriptor is closed."""
        for one in list(self.interests.values()):
            self.drop(one)
        if self._edges is not None:
            self._edges.close()

    # What is ready

    def arrived(self, interest: Interest) -> bool:
        """An item is ready, as far as anybody knows; whether somebody was waiting for it."""
        if not interest.linked:
            interest.linked = True
            self._ready.append(interest)
        waited = bool(self.arrivals.waiters)
        self._wake_one()
        self._notify(self.read_queue, POLLIN)
        return waited

    def _wake_one(self) -> None:
        if self.arrivals.waiters:
            self.vfs.wake(self.arrivals.wake(1))

    def send(self, most: int, deliver: Deliver) -> int:
        """Deliver `most` events at most, from the front; how many (ep_send_events).

        EFAULT when the first cannot be delivered. An event that cannot is the first of the next call.
        """
        self.harvest()
        ready, done = self._ready, 0
        for _ in range(len(ready)):
            if done == most:
                break
            interest = ready[0]
            events = interest.occurred()  # a timer that rings only now is linked still: it is told of once
            ready.popleft()
            interest.linked = False
            if not events:
                continue
            try:
                deliver(done, events, interest.data)
            except LinuxError:
                ready.appendleft(interest)
                interest.linked = True
                if not done:
                    raise LinuxError(EFAULT) from None
                break
            done += 1
            if interest.events & EPOLLONESHOT:
                interest.events &= PRIVATE
            elif not interest.events & EPOLLET:
                ready.append(interest)
                interest.linked = True
        if ready:
            self._wake_one()
        return done

    def ready(self) -> int:
        """POLLIN when an event could be delivered; items before it that have none are forgotten (ep_eventpoll_poll)."""
        self.harvest()
        ready = self._ready
        while ready:
            if ready[0].occurred():
                return POLLIN | POLLRDNORM
            ready.popleft().linked = False
        return 0

    # Files of the host

    def _listen_to_host(self, interest: Interest) -> None:
        try:
            self._host_edges().add(interest)
        except LinuxError:
            self.drop(interest)
            raise
        self.harvest()  # what holds already is not told twice

    def _host_edges(self) -> HostEdges:
        if self._edges is None:
            from loadstone.linux.host_edges import HostEdges

            self._edges = HostEdges()
            for one in self._wanted_by():  # lists that wait for this one had nothing of the host to wait for
                one.list._host_edges().add(one)
        self.vfs.wake(self.arrivals.wake())  # they must wait for the host as well
        return self._edges

    def harvest(self) -> None:
        """Notice what has happened to files of the host."""
        if self._edges is not None:
            for interest, events in self._edges.take():
                if isinstance(interest.file, EpollFile):
                    interest.file.harvest()
                else:
                    interest.happened(events)

    def host_fd(self) -> int:
        """What to wait for on the host, -1 if nothing of it is in the list."""
        return self._edges.fileno() if self._edges is not None else -1

    # Lists in lists

    def inner(self) -> Iterator[EpollFile]:
        """The lists that this one has an interest in."""
        return (one.file for one in self.interests.values() if isinstance(one.file, EpollFile))

    def outer(self) -> Iterator[EpollFile]:
        """The lists that have an interest in this one."""
        return (one.list for one in self._wanted_by())

    def _wanted_by(self) -> Iterator[Interest]:
        return (one for one in self.file_interests if isinstance(one, Interest))


def _demand_shallow(where: EpollFile, added: EpollFile) -> None:
    """ELOOP if a list would contain itself, or if more than MAX_NESTS of them would be in a row (ep_loop_check)."""
    below = _levels(added, EpollFile.inner, where)
    above = _levels(where, EpollFile.outer)
    if below + 1 + above > MAX_NESTS:
        raise LinuxError(ELOOP)


def _levels(
    start: EpollFile, beyond: Callable[[EpollFile], Iterator[EpollFile]], never: EpollFile | None = None
) -> int:
    """How far the lists go on from `start`: too far if they come to `never`."""
    levels, level = 0, {start}
    while levels <= MAX_NESTS:
        if never in level:
            return MAX_NESTS + 1
        level = {one for here in level for one in beyond(here)}
        if not level:
            break
        levels += 1
    return levels

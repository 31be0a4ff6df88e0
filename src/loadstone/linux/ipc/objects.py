"""What an IPC namespace holds (include/linux/ipc_namespace.h).

System V shared memory, semaphores and message queues, POSIX message queues, and the limits on them. Each kind is made
when somebody first asks for it: most programs never do.
"""

from __future__ import annotations

from errno import ENOMEM
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.linux.namespaces import machine_namespaces, namespaces_of

if TYPE_CHECKING:
    from loadstone.kernel.kernel import Kernel
    from loadstone.kernel.process import Task
    from loadstone.linux.ipc.message_queues import MessageQueues
    from loadstone.linux.ipc.mqueue_files import PosixQueues
    from loadstone.linux.ipc.semaphores import SemaphoreSets
    from loadstone.linux.ipc.shm import Segments
    from loadstone.linux.namespaces.users import UserNamespace

_SECOND = 1_000_000_000


class IpcObjects:
    """The objects of one namespace. `users`: the user namespace whose capabilities count for them."""

    __slots__ = ("_kept_bytes", "_kernel", "_posix_queues", "_queues", "_segments", "_semaphores", "users")

    def __init__(self, kernel: Kernel, users: UserNamespace | None) -> None:
        self._kernel = kernel
        self.users = users
        self._segments: Segments | None = None
        self._semaphores: SemaphoreSets | None = None
        self._queues: MessageQueues | None = None
        self._posix_queues: PosixQueues | None = None
        self._kept_bytes = 0

    @property
    def segments(self) -> Segments:
        """System V shared memory."""
        if self._segments is None:
            from loadstone.linux.ipc.shm import Segments

            self._segments = Segments(self._kernel, self.users)
        return self._segments

    @property
    def semaphores(self) -> SemaphoreSets:
        """System V semaphores."""
        if self._semaphores is None:
            from loadstone.linux.ipc.semaphores import SemaphoreSets

            self._semaphores = SemaphoreSets(self)
        return self._semaphores

    @property
    def queues(self) -> MessageQueues:
        """System V message queues."""
        if self._queues is None:
            from loadstone.linux.ipc.message_queues import MessageQueues

            self._queues = MessageQueues(self)
        return self._queues

    @property
    def posix_queues(self) -> PosixQueues:
        """POSIX message queues."""
        if self._posix_queues is None:
            from loadstone.linux.ipc.mqueue_files import PosixQueues

            self._posix_queues = PosixQueues(self._kernel, self)
        return self._posix_queues

    def now_s(self) -> int:
        """Seconds since 1970."""
        return self._kernel.clock.realtime_ns() // _SECOND

    def wake(self, waiters: list[object]) -> None:
        """Let tasks that were taken off a queue run."""
        self._kernel.scheduler.wake(waiters)

    def keep(self, size: int) -> None:
        """Take `size` bytes of kernel memory; ENOMEM where the machine has no more.

        The kernel keeps semaphores and messages in its own memory, which is the machine's. Here they are not in the
        machine's frames, but must not be more than would fit there.
        """
        kernel, machine = self._kernel, machine_namespaces(self._kernel)
        if machine.kept_bytes + size > kernel.options.memory_size - (kernel.memory.used << 12):
            raise LinuxError(ENOMEM, "the machine's memory has no room for what waits between processes")
        self.keep_again(size)

    def keep_again(self, size: int) -> None:
        """Take back what was given back a moment ago, whatever there is room for."""
        machine_namespaces(self._kernel).kept_bytes += size
        self._kept_bytes += size

    def give_back(self, size: int) -> None:
        """Return what was kept."""
        machine_namespaces(self._kernel).kept_bytes -= size
        self._kept_bytes -= size

    def remove_all(self) -> None:
        """The namespace is gone: nobody finds anything here; segments that are mapped stay as long as they are."""
        if self._kernel.memory.closed:
            return
        self.give_back(self._kept_bytes)
        if self._segments is not None:
            self._segments.remove_all()


def ipc_of(task: Task) -> IpcObjects:
    """The objects of the namespace that a task is in."""
    namespace = namespaces_of(task).ipc
    if namespace.objects is None:
        namespace.objects = IpcObjects(task.kernel, namespace.owner)
    return namespace.objects

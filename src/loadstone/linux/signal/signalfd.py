"""Signals that are read: signalfd. Source: fs/signalfd.c."""

from __future__ import annotations

from errno import EINVAL
from struct import Struct
from typing import TYPE_CHECKING, Final

from loadstone.errors import LinuxError
from loadstone.linux.anon_inodes import AnonymousFile
from loadstone.linux.signal import sending, signals
from loadstone.linux.structs import signed
from loadstone.vfs.file import WouldBlock, total
from loadstone.vfs.flags import POLLIN, POLLRDNORM
from loadstone.vfs.regular import scatter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadstone.kernel.kernel import Kernel
    from loadstone.kernel.process import Task
    from loadstone.linux.signal.signals import SigInfo
    from loadstone.wait import WaitQueue

RECORD: Final = 128
# struct signalfd_siginfo: signo errno code pid uid fd tid band overrun trapno status int | ptr utime stime addr
_LAYOUT = Struct("<IiiIIiIIIIii4Q48x")
_WORDS = Struct("<iiqqq")
_CHILD = Struct("<iIi4xqq")


class SignalFile(AnonymousFile):
    """The pending signals in `mask` of whoever reads it: not of the process that made it."""

    __slots__ = ("kernel", "mask")

    kind = "signalfd"

    def __init__(self, kernel: Kernel, mask: int, flags: int) -> None:
        super().__init__(kernel.vfs, flags)
        self.kernel = kernel
        self.mask = mask

    def details(self) -> bytes:
        """The mask (signalfd_show_fdinfo)."""
        return b"sigmask:\t%016x\n" % self.mask

    def _reader(self) -> Task:
        reader = self.kernel.scheduler.current
        assert reader is not None
        return reader

    def read_into(self, pieces: Sequence[memoryview], offset: int | None = None) -> int:
        """As many signals as there are and fit."""
        most = total(pieces) // RECORD
        if not most:
            raise LinuxError(EINVAL)
        reader = self._reader()
        records: list[bytes] = []
        while len(records) < most:
            info = sending.take(reader, self.mask)
            if info is None:
                break
            records.append(record(info))
        if not records:
            raise WouldBlock(reader.process.signals.sent)
        scatter(pieces, memoryview(b"".join(records)))
        return RECORD * len(records)

    def write_from(self, pieces: Sequence[memoryview], offset: int | None = None) -> int:
        """Signals are sent otherwise."""
        raise LinuxError(EINVAL)

    def available(self) -> int | None:
        """What a read can give."""
        reader = self._reader()
        pending = (*reader.signals.pending.queue, *reader.process.signals.pending.queue)
        return RECORD * sum(bool(signals.bit(info.number) & self.mask) for info in pending)

    def ready(self) -> int:
        """POLLIN while a signal of the mask is pending."""
        reader = self._reader()
        pending = reader.signals.pending.mask | reader.process.signals.pending.mask
        return POLLIN | POLLRDNORM if pending & self.mask else 0

    def queues(self) -> list[WaitQueue]:
        """Of the process that waits."""
        return [self._reader().process.signals.sent]


def record(info: SigInfo) -> bytes:
    """A siginfo as signalfd shows it: which fields there are depends on the code (signalfd_copyinfo)."""
    fields = info.fields.ljust(_WORDS.size, b"\0")
    first, second, value, _, _ = _WORDS.unpack_from(fields)
    pid = uid = tid = overrun = status = number = 0
    pointer = user_time = system_time = address = 0
    if info.code == signals.SI_TIMER:
        tid, overrun, pointer, number = first, second, value, value
    elif info.code < 0 and info.code != signals.SI_TKILL:
        pid, uid, pointer, number = first, second, value, value
    elif info.number == signals.SIGCHLD and 0 < info.code < signals.SI_KERNEL:
        pid, uid, status, user_time, system_time = _CHILD.unpack_from(fields)
    elif info.address:
        address = info.address
    elif info.code != signals.SI_KERNEL:
        pid, uid = first, second
    uint, ulong = 0xFFFFFFFF, (1 << 64) - 1
    number = signed(number)
    head = (info.number, info.errno, info.code, pid & uint, uid & uint, 0, tid & uint, 0, overrun & uint, 0)
    return _LAYOUT.pack(*head, status, number, pointer & ulong, user_time, system_time, address)

"""ioctl on the user's terminal, through a list of what is allowed. Sources: drivers/tty/tty_io.c, tty_ioctl.c.

What would let a program type on the user's behalf, or take over their terminal, is EPERM: TIOCSTI, TIOCLINUX, TIOCCONS
and whatever else changes more than modes.
"""

from __future__ import annotations

from errno import EINVAL, ENOTTY, EPERM, ESRCH
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.linux import jobs
from loadstone.linux.of_task import pid_meant, pid_seen
from loadstone.linux.refusals import count_refusal
from loadstone.linux.signal.signals import SIGTTOU
from loadstone.linux.structs import INT, TERMIOS, TERMIOS2, WINSIZE, signed

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadstone.linux.syscalls.ioctl import Call

# include/uapi/asm-generic/ioctls.h
TCGETS, TCSETS, TCSETSW, TCSETSF, TCGETA, TCSETA, TCSETAW, TCSETAF = range(0x5401, 0x5409)
TCSBRK, TCXONC, TCFLSH, TIOCEXCL, TIOCNXCL, TIOCSCTTY, TIOCGPGRP, TIOCSPGRP = range(0x5409, 0x5411)
TIOCOUTQ, TIOCSTI, TIOCGWINSZ, TIOCSWINSZ = range(0x5411, 0x5415)
TIOCLINUX, TIOCCONS, TIOCPKT, TIOCNOTTY, TIOCSETD, TIOCGETD, TCSBRKP = 0x541C, 0x541D, 0x5420, *range(0x5422, 0x5426)
TIOCGSID, TIOCVHANGUP = 0x5429, 0x5437
FIONREAD = 0x541B  # TIOCINQ to terminals; other files know it, too
TCGETS2, TCSETS2, TCSETSW2, TCSETSF2 = 0x802C542A, 0x402C542B, 0x402C542C, 0x402C542D
TERMIO_SIZE = 18  # struct termio of System V


def _tells(size: int) -> Callable[[Call], int]:
    """What the host says, `size` bytes."""
    return lambda call: call.write(call.host(bytes(size)))


def _sets_modes(size: int) -> Callable[[Call], int]:
    """The modes that the user had come back when the machine ends."""

    def set_modes(call: Call) -> int:
        jobs.must_be_foreground(call.task, SIGTTOU)
        modes = call.read(size)
        call.console.remember(call.terminal)
        call.host(modes)
        return 0

    return set_modes


def _with_number(call: Call) -> int:
    """TCSBRK, TCFLSH, TCXONC: the argument itself is the number; -1 and the like stay what they are."""
    jobs.must_be_foreground(call.task, SIGTTOU)
    return call.host_number(signed(call.argument))


def _need_terminal(call: Call) -> None:
    if jobs.controlling(call.task.process) is not call.console:
        raise LinuxError(ENOTTY, "not the controlling terminal of the caller's session")


def _get_foreground(call: Call) -> int:
    _need_terminal(call)
    return call.write(INT.pack(pid_seen(call.task.process, call.console.foreground)))


def _set_foreground(call: Call) -> int:
    """The group must be one of the session; the host's terminal is not asked, its groups are not the guest's."""
    jobs.must_be_foreground(call.task, SIGTTOU)
    _need_terminal(call)
    call.console.foreground = group_of_session(call)
    return 0


def group_of_session(call: Call) -> int:
    """The group that TIOCSPGRP names: EINVAL, ESRCH, or EPERM if it is another session's."""
    (group,) = INT.unpack(call.read(4))
    if group < 0:
        raise LinuxError(EINVAL)
    group = pid_meant(call.task.process, group)
    members = [p for p in call.task.kernel.processes.values() if p.group == group and p.status is None]
    if not members:
        raise LinuxError(ESRCH)
    if all(p.session != call.task.process.session for p in members):
        raise LinuxError(EPERM)
    group_number: int = group
    return group_number


def _get_session(call: Call) -> int:
    _need_terminal(call)
    return call.write(INT.pack(pid_seen(call.task.process, call.task.process.session)))


def _discipline(call: Call) -> int:
    return call.write(INT.pack(0))


def _set_discipline(call: Call) -> int:
    (wanted,) = INT.unpack(call.read(4))
    if wanted:
        return refused(call)
    return 0


def _exclusive(call: Call) -> int:
    """TIOCEXCL would lock the user's other programs out; without it a guest loses nothing."""
    return 0


def _leave(call: Call) -> int:
    """TIOCNOTTY: the guest's session gives its terminal up; the host's process keeps it."""
    jobs.give_terminal_up(call.task.process)
    return 0


def _take(call: Call) -> int:
    """TIOCSCTTY. A terminal is never taken away from another session, whatever the argument says."""
    jobs.take_terminal(call.task.process)
    return 0


def refused(call: Call) -> int:
    """EPERM, and it is counted under the request's name."""
    count_refusal(call.task, f"ioctl {NAMES.get(call.request, hex(call.request))}")
    raise LinuxError(EPERM, "not allowed on the user's terminal")


NAMES = {
    TIOCSTI: "TIOCSTI",
    TIOCLINUX: "TIOCLINUX",
    TIOCCONS: "TIOCCONS",
    TIOCSWINSZ: "TIOCSWINSZ",
    TIOCSETD: "TIOCSETD",
    TIOCVHANGUP: "TIOCVHANGUP",
    TIOCPKT: "TIOCPKT",
}

TERMINAL: dict[int, Callable[[Call], int]] = {
    TCGETS: _tells(TERMIOS.size),
    TCGETS2: _tells(TERMIOS2.size),
    TCGETA: _tells(TERMIO_SIZE),
    **dict.fromkeys((TCSETS, TCSETSW, TCSETSF), _sets_modes(TERMIOS.size)),
    **dict.fromkeys((TCSETS2, TCSETSW2, TCSETSF2), _sets_modes(TERMIOS2.size)),
    **dict.fromkeys((TCSETA, TCSETAW, TCSETAF), _sets_modes(TERMIO_SIZE)),
    TCSBRK: _with_number,
    TCSBRKP: _with_number,
    TCXONC: _with_number,
    TCFLSH: _with_number,
    TIOCOUTQ: _tells(INT.size),
    TIOCGWINSZ: _tells(WINSIZE.size),
    TIOCSWINSZ: refused,
    TIOCGPGRP: _get_foreground,
    TIOCSPGRP: _set_foreground,
    TIOCGSID: _get_session,
    TIOCGETD: _discipline,
    TIOCSETD: _set_discipline,
    TIOCEXCL: _exclusive,
    TIOCNXCL: _exclusive,
    TIOCNOTTY: _leave,
    TIOCSCTTY: _take,
    TIOCPKT: refused,
    TIOCVHANGUP: refused,
}

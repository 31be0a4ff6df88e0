"""ioctl on the machine's own pseudo-terminals. Sources: drivers/tty/tty_io.c, tty_ioctl.c, tty_jobctrl.c, pty.c.

Modes, size and job control are those of the program's side, whichever side is asked.
"""

from __future__ import annotations

from errno import EINVAL, EIO, ENOTTY, EPERM
from struct import Struct
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.linux import jobs
from loadstone.linux.of_task import pid_seen
from loadstone.linux.signal.signals import SIGINT, SIGQUIT, SIGTSTP, SIGTTOU
from loadstone.linux.structs import INT, TERMIOS, TERMIOS2, WINSIZE
from loadstone.linux.syscalls import terminal as any_terminal
from loadstone.vfs.flags import O_CLOEXEC
from loadstone.vfs.pty import MasterFile, SlaveFile
from loadstone.vfs.terminal_modes import CONTROL_CHARACTERS, VSTART, VSTOP, Modes

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadstone.linux.syscalls.ioctl import Call
    from loadstone.vfs.file import OpenFile
    from loadstone.vfs.pty import Pty

# include/uapi/asm-generic/ioctls.h
TIOCGPTN, TIOCSPTLCK, TIOCGPTLCK, TIOCGPTPEER, TIOCSIG = 0x80045430, 0x40045431, 0x80045439, 0x5441, 0x40045436
TIOCGDEV, TIOCGPKT = 0x80045432, 0x80045438
TERMIO = Struct("<4HB8sx")  # struct termio of System V
TCIFLUSH, TCOFLUSH, TCIOFLUSH = range(3)
TCOOFF, TCOON, TCIOFF, TCION = range(4)
SIGWINCH = 28
_KEYBOARD_SIGNALS = (SIGINT, SIGQUIT, SIGTSTP)


def demand_connected(file: OpenFile, request: int) -> None:
    """After a hang-up there is no terminal any more (hung_up_tty_ioctl)."""
    if isinstance(file, SlaveFile) and file.hung_up:
        raise LinuxError(ENOTTY if request == any_terminal.TIOCSPGRP else EIO)


def _tty(call: Call) -> Pty:
    assert call.file.tty is not None
    return call.file.tty


def _is_master(call: Call) -> bool:
    return isinstance(call.file, MasterFile)


def _demand_master(call: Call) -> Pty:
    if not _is_master(call):
        raise LinuxError(ENOTTY, "a request for the master side")
    return _tty(call)


def _demand_foreground(call: Call) -> None:
    jobs.must_be_foreground(call.task, SIGTTOU, _tty(call))


# Modes


def _get_modes(call: Call) -> int:
    one = _tty(call).discipline.modes
    return call.write(TERMIOS.pack(one.iflag, one.oflag, one.cflag, one.lflag, one.line, one.cc))


def _get_modes_and_speed(call: Call) -> int:
    one = _tty(call).discipline.modes
    words = (one.iflag, one.oflag, one.cflag, one.lflag, one.line, one.cc, one.ispeed, one.ospeed)
    return call.write(TERMIOS2.pack(*words))


def _get_old_modes(call: Call) -> int:
    one = _tty(call).discipline.modes
    words = [word & 0xFFFF for word in (one.iflag, one.oflag, one.cflag, one.lflag)]
    return call.write(TERMIO.pack(*words, one.line, one.cc[:8]))


def _set_modes(call: Call) -> int:
    _demand_foreground(call)
    modes = Modes()
    modes.iflag, modes.oflag, modes.cflag, modes.lflag, _, modes.cc = TERMIOS.unpack(call.read(TERMIOS.size))
    return _apply(call, modes, call.request == any_terminal.TCSETSF)


def _set_modes_and_speed(call: Call) -> int:
    _demand_foreground(call)
    modes = Modes()
    words = TERMIOS2.unpack(call.read(TERMIOS2.size))
    modes.iflag, modes.oflag, modes.cflag, modes.lflag, _, modes.cc, modes.ispeed, modes.ospeed = words
    return _apply(call, modes, call.request == any_terminal.TCSETSF2)


def _set_old_modes(call: Call) -> int:
    """Only the low halves of the words, and the first eight characters, change."""
    _demand_foreground(call)
    old, modes = _tty(call).discipline.modes, Modes()
    iflag, oflag, cflag, lflag, _, cc = TERMIO.unpack(call.read(TERMIO.size))
    high = ~0xFFFF
    modes.iflag, modes.oflag = old.iflag & high | iflag, old.oflag & high | oflag
    modes.cflag, modes.lflag = old.cflag & high | cflag, old.lflag & high | lflag
    modes.cc = cc + old.cc[len(cc) : len(CONTROL_CHARACTERS)]
    modes.ispeed, modes.ospeed = old.ispeed, old.ospeed
    return _apply(call, modes, call.request == any_terminal.TCSETAF)


def _apply(call: Call, modes: Modes, flush: bool) -> int:
    tty = _tty(call)
    if flush:
        tty.drop_input()
    tty.set_modes(modes)
    return 0


# Queues


def _flush(call: Call) -> int:
    """TCFLSH: each side throws away its own input, and of its output what the other has not got."""
    _demand_foreground(call)
    tty, which = _tty(call), call.argument
    if which not in (TCIFLUSH, TCOFLUSH, TCIOFLUSH):
        raise LinuxError(EINVAL)
    master = _is_master(call)
    if which != TCOFLUSH:
        (tty.drop_screen if master else tty.drop_input)()
    if which != TCIFLUSH:
        (tty.drop_keys if master else tty.drop_output)()
    return 0


def _flow(call: Call) -> int:
    """TCXONC: stop or start this side's output, or have the other side do so by the characters for it."""
    _demand_foreground(call)
    tty, what = _tty(call), call.argument
    if what not in (TCOOFF, TCOON, TCIOFF, TCION):
        raise LinuxError(EINVAL)
    if _is_master(call):
        return 0  # a keyboard is never stopped
    if what in (TCOOFF, TCOON):
        tty.stop(what == TCOOFF)
    else:
        character = tty.discipline.modes.cc[VSTOP if what == TCIOFF else VSTART]
        if character:
            tty.show(bytes((character,)))
    return 0


def _drain(call: Call) -> int:
    """TCSBRK, TCSBRKP: output is drained at once, and there is no line to break."""
    _demand_foreground(call)
    return 0


def _bytes_to_read(call: Call) -> int:
    tty = _tty(call)
    left = tty.waiting_output() if _is_master(call) else tty.discipline.available()
    return call.write(INT.pack(left))


def _bytes_to_write(call: Call) -> int:
    """Nothing waits on this side: what is written is with the other."""
    return call.write(INT.pack(0))


# Size


def _get_size(call: Call) -> int:
    return call.write(_tty(call).size)


def _set_size(call: Call) -> int:
    """TIOCSWINSZ: a change is a SIGWINCH for the foreground group."""
    tty, size = _tty(call), call.read(WINSIZE.size)
    if size != tty.size:
        tty.size = size
        if tty.foreground:
            jobs.send_group(call.task.kernel, tty.foreground, SIGWINCH)
    return 0


# Job control


def _demand_controlling(call: Call) -> None:
    """Only the master may ask about a terminal that is not the caller's own."""
    if not _is_master(call) and jobs.controlling(call.task.process) is not _tty(call):
        raise LinuxError(ENOTTY)


def _get_foreground(call: Call) -> int:
    _demand_controlling(call)
    return call.write(INT.pack(_tty(call).foreground))


def _set_foreground(call: Call) -> int:
    try:
        _demand_foreground(call)
    except LinuxError:
        raise LinuxError(ENOTTY) from None
    if jobs.controlling(call.task.process) is not _tty(call):
        raise LinuxError(ENOTTY)
    _tty(call).foreground = any_terminal.group_of_session(call)
    return 0


def _get_session(call: Call) -> int:
    _demand_controlling(call)
    if not _tty(call).session:
        raise LinuxError(ENOTTY)
    return call.write(INT.pack(pid_seen(call.task.process, _tty(call).session)))


def _take(call: Call) -> int:
    """TIOCSCTTY; with 1, root takes it away from another session."""
    tty, process = _tty(call), call.task.process
    other = tty.session and tty.session != process.session
    if other and call.argument == 1 and process.credentials.euid == 0 and jobs.controlling(process) is None:
        if process.session != process.pid:
            raise LinuxError(EPERM)
        tty.session = tty.foreground = 0
    jobs.take_terminal(process, tty)
    return 0


def _leave(call: Call) -> int:
    if jobs.controlling(call.task.process) is not _tty(call):
        raise LinuxError(ENOTTY)
    jobs.give_terminal_up(call.task.process)
    return 0


def _send_signal(call: Call) -> int:
    """TIOCSIG: the master sends the foreground group a signal as its keys do (pty_signal)."""
    tty = _demand_master(call)
    number = call.argument & 0xFFFFFFFF
    if number not in _KEYBOARD_SIGNALS:
        raise LinuxError(EINVAL)
    if tty.foreground:
        jobs.send_group(call.task.kernel, tty.foreground, number)
    return 0


# The pair


def _get_number(call: Call) -> int:
    return call.write(INT.pack(_demand_master(call).number))


def _lock(call: Call) -> int:
    tty = _demand_master(call)
    tty.locked = bool(INT.unpack(call.read(4))[0])
    return 0


def _get_lock(call: Call) -> int:
    return call.write(INT.pack(int(_demand_master(call).locked)))


def _set_packets(call: Call) -> int:
    """TIOCPKT: every read of the master begins with a byte that says what it is."""
    _demand_master(call).packets.switch(bool(INT.unpack(call.read(INT.size))[0]))
    return 0


def _get_packets(call: Call) -> int:
    return call.write(INT.pack(int(_demand_master(call).packets.on)))


def _open_peer(call: Call) -> int:
    """TIOCGPTPEER: the other side, without its name, which another mount could hide."""
    tty, process = _demand_master(call), call.task.process
    flags = call.argument & 0xFFFFFFFF
    process.files.free()
    file = call.task.kernel.vfs.open(f"/dev/pts/{tty.number}", flags & ~O_CLOEXEC)
    return process.files.install(file, cloexec=bool(flags & O_CLOEXEC))


def _device(call: Call) -> int:
    return call.write(INT.pack(call.file.inode.rdev))


def _discipline(call: Call) -> int:
    return call.write(INT.pack(0))


def _set_discipline(call: Call) -> int:
    if INT.unpack(call.read(4))[0]:
        raise LinuxError(EINVAL, "there is no other line discipline")
    return 0


def _exclusive(call: Call) -> int:
    """TIOCEXCL keeps nobody out but who is not root."""
    return 0


PSEUDO_TERMINAL: dict[int, Callable[[Call], int]] = {
    any_terminal.TCGETS: _get_modes,
    any_terminal.TCSETS: _set_modes,
    any_terminal.TCSETSW: _set_modes,
    any_terminal.TCSETSF: _set_modes,
    any_terminal.TCGETS2: _get_modes_and_speed,
    any_terminal.TCSETS2: _set_modes_and_speed,
    any_terminal.TCSETSW2: _set_modes_and_speed,
    any_terminal.TCSETSF2: _set_modes_and_speed,
    any_terminal.TCGETA: _get_old_modes,
    any_terminal.TCSETA: _set_old_modes,
    any_terminal.TCSETAW: _set_old_modes,
    any_terminal.TCSETAF: _set_old_modes,
    any_terminal.TCSBRK: _drain,
    any_terminal.TCSBRKP: _drain,
    any_terminal.TCXONC: _flow,
    any_terminal.TCFLSH: _flush,
    any_terminal.FIONREAD: _bytes_to_read,
    any_terminal.TIOCOUTQ: _bytes_to_write,
    any_terminal.TIOCGWINSZ: _get_size,
    any_terminal.TIOCSWINSZ: _set_size,
    any_terminal.TIOCGPGRP: _get_foreground,
    any_terminal.TIOCSPGRP: _set_foreground,
    any_terminal.TIOCGSID: _get_session,
    any_terminal.TIOCGETD: _discipline,
    any_terminal.TIOCSETD: _set_discipline,
    any_terminal.TIOCEXCL: _exclusive,
    any_terminal.TIOCNXCL: _exclusive,
    any_terminal.TIOCNOTTY: _leave,
    any_terminal.TIOCSCTTY: _take,
    TIOCGPTN: _get_number,
    TIOCSPTLCK: _lock,
    TIOCGPTLCK: _get_lock,
    TIOCGPTPEER: _open_peer,
    TIOCGDEV: _device,
    any_terminal.TIOCPKT: _set_packets,
    TIOCGPKT: _get_packets,
    TIOCSIG: _send_signal,
}

"""Process groups, sessions and the terminal: who is stopped, who is hung up, who is in the foreground.

Sources: kernel/exit.c (orphaned groups), kernel/signal.c (group stops), drivers/tty/tty_jobctrl.c.
"""

from __future__ import annotations

from errno import EIO, ENOTTY, EPERM
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.linux.console import TOSTOP, Console
from loadstone.linux.of_task import linux_of
from loadstone.linux.signal import sending, signals
from loadstone.linux.signal.restart import ERESTARTSYS, Restart
from loadstone.linux.signal.signals import SIGCONT, SIGHUP, SIGKILL
from loadstone.linux.state import is_frozen, process_state

if TYPE_CHECKING:
    from loadstone.kernel.kernel import Kernel
    from loadstone.kernel.process import Process, Task
    from loadstone.vfs.file import OpenFile
    from loadstone.vfs.pty import Pty


def members(kernel: Kernel, group: int) -> list[Process]:
    """The living processes of a process group."""
    return [process for process in kernel.processes.values() if process.group == group and process.status is None]


def send_group(kernel: Kernel, group: int, number: int) -> None:
    """The kernel sends a signal to a whole group."""
    for process in members(kernel, group):
        sending.send(process, signals.from_kernel(number))


def is_orphaned(kernel: Kernel, group: int) -> bool:
    """Whether no member has a parent outside the group and inside the session: nobody there could continue it."""
    for process in members(kernel, group):
        parent = process.parent
        if process.is_first:
            return False  # its parent is the user's shell
        if parent is not None and parent.group != group and parent.session == process.session:
            return False
    return True


def hang_up_orphans(process: Process, parent: Process | None) -> None:
    """A group that lost its last tie to `parent`, and has stopped members, gets SIGHUP and SIGCONT."""
    if parent is None or parent.group == process.group or parent.session != process.session:
        return
    kernel, group = process.kernel, process.group
    if any(one.stopped_by for one in members(kernel, group)) and is_orphaned(kernel, group):
        send_group(kernel, group, SIGHUP)
        send_group(kernel, group, SIGCONT)


def leave_terminal(process: Process) -> None:
    """A session leader ends: the foreground group is hung up, and the terminal belongs to nobody (disassociate_ctty).

    It goes on, for whoever has it open and for the next session: the user's is taken for a pseudo-terminal, too.
    """
    terminal = controlling(process) if process.session == process.pid else None
    if terminal is None:
        return
    group, terminal.foreground, terminal.session = terminal.foreground, 0, 0
    if group and (process.parent is not None or not isinstance(terminal, Console)):
        send_group(process.kernel, group, SIGHUP)


def controlling(process: Process) -> Console | Pty | None:
    """The controlling terminal of the process's session."""
    console = linux_of(process.tasks[0]).console
    if process.session and console.session == process.session:
        return console
    return process.kernel.vfs.terminal_of(process.session)


def must_be_foreground(task: Task, number: int, tty: Pty | None = None) -> None:
    """A process of a background group that uses its terminal is stopped by `number`, SIGTTIN or SIGTTOU.

    `tty` is what it uses, None for the host's terminal.
    Where that signal cannot stop it: EIO to read, but it may write and change modes (kernel: __tty_check_change).
    """
    process = task.process
    terminal = linux_of(task).console if tty is None else tty
    foreground = terminal.foreground
    if not foreground or process.group == foreground or controlling(process) is not terminal:
        return
    action = process.signals.action(number)
    if task.signals.mask & signals.bit(number) or action.handler == signals.SIG_IGN:
        if number == signals.SIGTTIN:
            raise LinuxError(EIO, "a background process that SIGTTIN cannot stop")
        return
    if is_orphaned(process.kernel, process.group):
        raise LinuxError(EIO, "the process group is in the background, and nobody could bring it back")
    send_group(process.kernel, process.group, number)
    raise Restart(ERESTARTSYS)


def before_write(task: Task, file: OpenFile) -> None:
    """Writing to a terminal from the background stops a process only where TOSTOP says so."""
    if file.tty is not None:
        if file.tty.discipline.modes.lflag & TOSTOP:
            must_be_foreground(task, signals.SIGTTOU, file.tty)
        return
    console = linux_of(task).console
    if task.process.group != console.foreground and console.stops_output(file.host_fd()):
        must_be_foreground(task, signals.SIGTTOU)


def take_terminal(process: Process, tty: Pty | None = None) -> None:
    """TIOCSCTTY: a session leader without a terminal takes one that nobody has. Raises LinuxError(EPERM)."""
    terminal = linux_of(process.tasks[0]).console if tty is None else tty
    if terminal.session == process.session == process.pid:
        return
    if process.session != process.pid or terminal.session or controlling(process) is not None:
        raise LinuxError(EPERM, "only the leader of a session takes a terminal, and only a free one")
    terminal.session, terminal.foreground = process.session, process.group


def opened_terminal(process: Process, file: OpenFile) -> None:
    """A session leader without a terminal gets the one that it opens, if that is nobody's (tty_open_proc_set_tty)."""
    tty = file.tty
    if tty is None or tty.session or process.session != process.pid or not file.readable:
        return
    if controlling(process) is None:
        take_terminal(process, tty)


def give_terminal_up(process: Process) -> None:
    """TIOCNOTTY: a session leader gives it up for its session, which is hung up; ENOTTY without one."""
    terminal = controlling(process)
    if terminal is None:
        raise LinuxError(ENOTTY)
    if process.session == process.pid:
        group, terminal.foreground, terminal.session = terminal.foreground, 0, 0
        send_group(process.kernel, group, SIGHUP)
        send_group(process.kernel, group, SIGCONT)


def stop(process: Process, number: int) -> None:
    """A signal's default action stops the process: its threads as they come by, then its parent is told."""
    from loadstone.linux.ending import CLD_STOPPED, tell_parent_of_stop

    process.stopped_by = number
    process.unreported = number
    for task in process.tasks:
        task.signals.attention = True
        process.kernel.scheduler.interrupt(task)
    tell_parent_of_stop(process, CLD_STOPPED, number)


def freeze(process: Process) -> None:
    """A control group stops the process, without a signal and without telling anybody (cgroup_freezer)."""
    process_state(process).frozen = True
    for task in process.tasks:
        task.signals.attention = True
        process.kernel.scheduler.interrupt(task)


def thaw(process: Process) -> None:
    """The control group lets the process go on."""
    if not is_frozen(process):
        return
    process_state(process).frozen = False
    for task in process.tasks:
        process.kernel.scheduler.resume(task)


def go_on(process: Process, number: int) -> None:
    """SIGCONT or SIGKILL: a stopped process runs again; of the first its parent is told."""
    from loadstone.linux.ending import CLD_CONTINUED, tell_parent_of_stop

    if number == SIGKILL:
        thaw(process)
    if not process.stopped_by:
        return
    process.stopped_by = 0
    process.unreported = SIGCONT if number == SIGCONT else None
    for task in process.tasks:
        process.kernel.scheduler.resume(task)
    if number == SIGCONT:
        tell_parent_of_stop(process, CLD_CONTINUED, SIGCONT)

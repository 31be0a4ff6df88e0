"""/proc/sysvipc: the System V objects of the reader's namespace, a line each (ipc/util.c, shm.c, sem.c, msg.c)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadstone.linux.ipc.objects import ipc_of
from loadstone.linux.of_task import current_task, pid_seen
from loadstone.linux.proc.files import Directory, ProcFile
from loadstone.linux.seq_file import LINES
from loadstone.memory.vma import PAGE
from loadstone.vfs.flags import S_IFREG

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadstone.kernel.kernel import Kernel
    from loadstone.kernel.process import Process
    from loadstone.linux.ipc.objects import IpcObjects
    from loadstone.linux.proc.files import Make, Produce

_SHM = (
    b"       key      shmid perms                  size  cpid  lpid nattch   uid   gid  cuid  cgid"
    b"      atime      dtime      ctime                   rss                  swap\n"
)
_SEM = b"       key      semid perms      nsems   uid   gid  cuid  cgid      otime      ctime\n"
_MSG = (
    b"       key      msqid perms      cbytes       qnum lspid lrpid   uid   gid  cuid  cgid"
    b"      stime      rtime      ctime\n"
)


def sysvipc_directory(kernel: Kernel, number: int, now: int) -> Directory:
    """The directory; `number` is its inode number."""

    def file(at: int, produce: Produce) -> Make:
        return lambda: ProcFile(produce, inode=number + at, now_ns=now, record=LINES)

    def shown(text: Callable[[IpcObjects, Process], bytes]) -> Produce:
        return lambda: text(ipc_of(current_task(kernel)), current_task(kernel).process)

    texts = {"sem": shown(sem_text), "msg": shown(msg_text), "shm": shown(shm_text)}
    table = {name: (S_IFREG, file(at, produce)) for at, (name, produce) in enumerate(texts.items(), 1)}
    return Directory(table, inode=number, now_ns=now)


def shm_text(around: IpcObjects, reader: Process) -> bytes:
    """The shared memory segments."""
    lines = [_SHM]
    for one in around.segments:
        p = one.permissions
        lines.append(
            b"%10d %10d  %4o %21d %5d %5d  %5d %5d %5d %5d %5d %10d %10d %10d %21d %21d\n"
            % (
                p.key, p.number, p.mode, one.size, pid_seen(reader, one.created_by), pid_seen(reader, one.used_by),
                one.attachments, *p.shown(reader.credentials), one.attached_s, one.detached_s, one.changed_s,
                one.resident_pages * PAGE, 0,
            )
        )  # fmt: skip
    return b"".join(lines)


def sem_text(around: IpcObjects, reader: Process) -> bytes:
    """The semaphore sets."""
    lines = [_SEM]
    for one in around.semaphores:
        p = one.permissions
        lines.append(
            b"%10d %10d  %4o %10d %5d %5d %5d %5d %10d %10d\n"
            % (p.key, p.number, p.mode, len(one), *p.shown(reader.credentials), one.operated_s, one.changed_s)
        )
    return b"".join(lines)


def msg_text(around: IpcObjects, reader: Process) -> bytes:
    """The message queues."""
    lines = [_MSG]
    for one in around.queues:
        p = one.permissions
        lines.append(
            b"%10d %10d  %4o  %10d %10d %5d %5d %5d %5d %5d %5d %10d %10d %10d\n"
            % (
                p.key, p.number, p.mode, one.bytes, len(one.messages), pid_seen(reader, one.sender),
                pid_seen(reader, one.receiver), *p.shown(reader.credentials), one.sent_s, one.received_s, one.changed_s,
            )
        )  # fmt: skip
    return b"".join(lines)

"""/proc/sysvipc: the System V objects of the reader's namespace, a line each (ipc/util.c, shm.c, sem.c, msg.c)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadstone.linux.ipc_objects import ipc_of
from loadstone.linux.proc import current_task
from loadstone.linux.proc_files import Directory, ProcFile
from loadstone.linux.seq_file import LINES
from loadstone.memory.vma import PAGE
from loadstone.vfs.flags import S_IFREG

if TYPE_CHECKING:
    from loadstone.kernel.kernel import Kernel
    from loadstone.linux.ipc_objects import IpcObjects
    from loadstone.linux.proc_files import Make, Produce

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

    def here() -> IpcObjects:
        return ipc_of(current_task(kernel))

    texts = {"sem": lambda: sem_text(here()), "msg": lambda: msg_text(here()), "shm": lambda: shm_text(here())}
    table = {name: (S_IFREG, file(at, produce)) for at, (name, produce) in enumerate(texts.items(), 1)}
    return Directory(table, inode=number, now_ns=now)


def shm_text(around: IpcObjects) -> bytes:
    """The shared memory segments."""
    lines = [_SHM]
    for one in around.segments:
        p = one.permissions
        lines.append(
            b"%10d %10d  %4o %21d %5d %5d  %5d %5d %5d %5d %5d %10d %10d %10d %21d %21d\n"
            % (
                p.key, p.number, p.mode, one.size, one.created_by, one.used_by, one.attachments, p.uid, p.gid, p.cuid,
                p.cgid, one.attached_s, one.detached_s, one.changed_s, one.resident_pages * PAGE, 0,
            )
        )  # fmt: skip
    return b"".join(lines)


def sem_text(around: IpcObjects) -> bytes:
    """The semaphore sets."""
    lines = [_SEM]
    for one in around.semaphores:
        p = one.permissions
        lines.append(
            b"%10d %10d  %4o %10d %5d %5d %5d %5d %10d %10d\n"
            % (p.key, p.number, p.mode, len(one), p.uid, p.gid, p.cuid, p.cgid, one.operated_s, one.changed_s)
        )
    return b"".join(lines)


def msg_text(around: IpcObjects) -> bytes:
    """The message queues."""
    lines = [_MSG]
    for one in around.queues:
        p = one.permissions
        lines.append(
            b"%10d %10d  %4o  %10d %10d %5d %5d %5d %5d %5d %5d %10d %10d %10d\n"
            % (
                p.key, p.number, p.mode, one.bytes, len(one.messages), one.sender, one.receiver, p.uid, p.gid, p.cuid,
                p.cgid, one.sent_s, one.received_s, one.changed_s,
            )
        )  # fmt: skip
    return b"".join(lines)

"""System calls on the process itself: its numbers, its end, its settings, and the exec that replaces it."""

from __future__ import annotations

from errno import EACCES, EINTR, EINVAL, ENODEV, EPERM, ESRCH
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.kernel.process import INIT, ExitStatus
from loadstone.linux import rseq as restartable
from loadstone.linux.of_task import process_called, task_of
from loadstone.linux.state import READ_IMPLIES_EXEC, process_state
from loadstone.linux.structs import WORD
from loadstone.linux.syscalls import execution
from loadstone.linux.syscalls.registry import FULL, PARTIAL, syscall
from loadstone.linux.syscalls.transfer import write_struct
from loadstone.memory.placement import TASK_SIZE_MAX

if TYPE_CHECKING:
    from loadstone.kernel.process import Process, Task
    from loadstone.linux.syscalls.arguments import (
        Address,
        ArchCode,
        AtFlags,
        DirFd,
        Environment,
        Hex,
        Int,
        Path,
        Pid,
        Size,
        Strings,
        UHex,
        UInt,
    )
    from loadstone.wait import Blocking

# ------------------------------------------------------------------------------------------------ numbers


@syscall(FULL)
def getpid(task: Task) -> Pid:
    """getpid(2)."""
    return task.process.pid


@syscall(FULL)
def gettid(task: Task) -> Pid:
    """gettid(2)."""
    return task.tid


@syscall(FULL)
def getppid(task: Task) -> Pid:
    """getppid(2)."""
    return task.process.parent_pid


@syscall(FULL)
def getpgrp(task: Task) -> Pid:
    """getpgrp(2)."""
    return task.process.group


@syscall(FULL)
def getpgid(task: Task, pid: Pid) -> Pid:
    """getpgid(2)."""
    return 0 if pid == INIT else _find(task, pid).group


@syscall(FULL)
def getsid(task: Task, pid: Pid) -> Pid:
    """getsid(2)."""
    return 0 if pid == INIT else _find(task, pid).session


@syscall(FULL)
def setpgid(task: Task, pid: Pid, group: Pid) -> int:
    """setpgid(2)."""
    if (group or pid) < 0:
        raise LinuxError(EINVAL)
    process = _find(task, pid)
    if pid and pid != process.pid:
        raise LinuxError(EINVAL, f"{pid} is one of the threads of process {process.pid}")
    if process is not task.process and process.parent is not task.process:
        raise LinuxError(ESRCH, f"process {pid} is not a child")
    if process.session == process.pid or process.session != task.process.session:
        raise LinuxError(EPERM, "the leader of a session, or a process of another one")
    if process is not task.process and process.has_executed:
        raise LinuxError(EACCES, "the child has called exec since")
    group = group or process.pid
    others = task.kernel.processes.values()
    if group != process.pid and not any(p.group == group and p.session == process.session for p in others):
        raise LinuxError(EPERM, f"no process group {group} in this session")
    process.group = group
    return 0


@syscall(FULL)
def setsid(task: Task) -> Pid:
    """setsid(2)."""
    process = task.process
    if any(other.group == process.pid for other in task.kernel.processes.values()):
        raise LinuxError(EPERM, "the process leads a group")
    process.session = process.group = process.pid
    return process.pid


def _find(task: Task, pid: int) -> Process:
    """The process of that number, or with a thread of that number; the caller's for 0."""
    found = process_called(task, pid) if pid else task.process
    if found is None:
        raise LinuxError(ESRCH, f"no process {pid}")
    return found


# ------------------------------------------------------------------------------------------------ the end


@syscall(FULL)
def exit(task: Task, status: Int) -> None:
    """exit(2) of the kernel: ends the calling thread only."""
    task.kernel.exit_task(task, status & 0xFF)


@syscall(FULL)
def exit_group(task: Task, status: Int) -> None:
    """exit_group(2): ends the process."""
    task.kernel.exit_process(task.process, ExitStatus(status & 0xFF))


# ------------------------------------------------------------------------------------------------ others


@syscall(FULL)
def restart_syscall(task: Task) -> int | Blocking:
    """restart_syscall(2): the rest of an interrupted sleep."""
    block, task.signals.restart_block = task.signals.restart_block, None
    if block is None:
        raise LinuxError(EINTR)
    again: Blocking = block(task)
    return again


# ------------------------------------------------------------------------------------------------ exec


@syscall(FULL)
def execve(task: Task, path: Path, arguments: Strings, environment: Environment) -> None:
    """execve(2)."""
    execution.execute(task, execution.program_path(task, path), arguments, environment)


@syscall(FULL)
def execveat(
    task: Task, directory: DirFd, path: Path, arguments: Strings, environment: Environment, flags: AtFlags
) -> None:
    """execveat(2)."""
    execution.execute_at(task, directory, path, arguments, environment, flags)


# ------------------------------------------------------------------------------------------------ settings


@syscall(FULL)
def set_tid_address(task: Task, address: Address) -> Pid:
    """set_tid_address(2)."""
    task.clear_child_tid = address
    return task.tid


_ROBUST_HEAD = 24


@syscall(FULL)
def set_robust_list(task: Task, head: Address, size: Size) -> int:
    """set_robust_list(2)."""
    if size != _ROBUST_HEAD:
        raise LinuxError(EINVAL, f"the list's head has {_ROBUST_HEAD} bytes, not {size}")
    task.robust_list = head
    return 0


@syscall(FULL)
def get_robust_list(task: Task, pid: Pid, head: Address, size: Address) -> int:
    """get_robust_list(2)."""
    from loadstone.linux.tracing.inspecting import may_inspect

    if pid == INIT and task.process.credentials.euid:
        raise LinuxError(EPERM, "the machine's own process")
    other = task_of(task, pid)
    if not may_inspect(task.process, other.process):
        raise LinuxError(EPERM, "a process of another user")
    write_struct(task, size, WORD, _ROBUST_HEAD)
    write_struct(task, head, WORD, other.robust_list)
    return 0


@syscall(FULL)
def rseq(task: Task, area: Address, length: UHex, flags: Int, signature: UHex) -> int:
    """rseq(2)."""
    restartable.register(task, area, length, flags, signature)
    return 0


@syscall(PARTIAL, "ADDR_NO_RANDOMIZE, ADDR_COMPAT_LAYOUT, READ_IMPLIES_EXEC and UNAME26 have an effect")
def personality(task: Task, persona: UInt) -> Hex:
    """personality(2): the old one; 0xffffffff only asks."""
    state = process_state(task.process)
    old = state.personality
    if persona != 0xFFFF_FFFF:
        state.personality = persona
        task.process.space.read_implies_exec = bool(persona & READ_IMPLIES_EXEC)
    return old


ARCH_SET_GS, ARCH_SET_FS, ARCH_GET_FS, ARCH_GET_GS = range(0x1001, 0x1005)
ARCH_GET_CPUID, ARCH_SET_CPUID = 0x1011, 0x1012
ARCH_GET_XCOMP_SUPP, ARCH_GET_XCOMP_PERM = 0x1021, 0x1022


@syscall(PARTIAL, "no CPUID faulting, and no extended state that has to be asked for (AMX)")
def arch_prctl(task: Task, code: ArchCode, address: Address) -> int:
    """arch_prctl(2)."""
    context = task.context
    if code in (ARCH_SET_FS, ARCH_SET_GS):
        if address >= TASK_SIZE_MAX:
            raise LinuxError(EPERM, f"{address:#x} is not an address of the program")
        context.write("fs_base" if code == ARCH_SET_FS else "gs_base", address)
    elif code in (ARCH_GET_FS, ARCH_GET_GS):
        write_struct(task, address, WORD, context.read("fs_base" if code == ARCH_GET_FS else "gs_base"))
    elif code == ARCH_GET_CPUID:
        return 1
    elif code == ARCH_SET_CPUID:
        if not address:
            raise LinuxError(ENODEV, "the CPU cannot make CPUID fault")
    elif code in (ARCH_GET_XCOMP_SUPP, ARCH_GET_XCOMP_PERM):
        write_struct(task, address, WORD, context.extended_features)
    else:
        raise LinuxError(EINVAL, f"no arch_prctl code {code:#x}")
    return 0

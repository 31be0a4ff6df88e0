"""System calls on the process itself: its numbers, its end, its settings, and the exec that replaces it."""

from __future__ import annotations

from errno import EACCES, EFAULT, EINTR, EINVAL, ENODEV, EPERM, ESRCH
from os import fsdecode
from typing import TYPE_CHECKING

from loadstone.errors import LinuxError
from loadstone.kernel.process import INIT, ExitStatus
from loadstone.linux import rseq as restartable
from loadstone.linux.capabilities import CAP_SETPCAP, LAST_CAPABILITY, capabilities_of, capable, lower_bound
from loadstone.linux.of_task import task_of
from loadstone.linux.state import (
    DEFAULT_SLACK,
    INHERITED_SLACK,
    PR_GET_DUMPABLE,
    PR_GET_KEEPCAPS,
    PR_GET_NO_NEW_PRIVS,
    PR_GET_TIMERSLACK,
    READ_IMPLIES_EXEC,
    process_state,
)
from loadstone.linux.structs import INT, WORD
from loadstone.linux.syscalls import execution
from loadstone.linux.syscalls.registry import FULL, PARTIAL, syscall
from loadstone.linux.syscalls.transfer import write_struct
from loadstone.memory.placement import TASK_SIZE_MAX
from loadstone.memory.user import copy_in, copy_out, read_string

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
        PrctlOption,
        Size,
        Strings,
        UHex,
        UInt,
        ULong,
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
    if group < 0:
        raise LinuxError(EINVAL)
    process = _find(task, pid)
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
    found = task.kernel.processes.get(pid) if pid else task.process
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
    from loadstone.linux.inspecting import may_inspect

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
_X87_AND_SSE = 3


@syscall(PARTIAL, "FS and GS bases; CPUID faulting and extended state as on a CPU that has neither")
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
        write_struct(task, address, WORD, _X87_AND_SSE)
    else:
        raise LinuxError(EINVAL, f"no arch_prctl code {code:#x}")
    return 0


# include/uapi/linux/prctl.h
PR_SET_PDEATHSIG, PR_GET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_KEEPCAPS, PR_GET_TIMING, PR_SET_TIMING = 1, 2, 4, 8, 13, 14
PR_SET_NAME, PR_GET_NAME, PR_GET_SECCOMP, PR_CAPBSET_READ, PR_CAPBSET_DROP = 15, 16, 21, 23, 24
PR_GET_TSC, PR_SET_TSC, PR_GET_SECUREBITS, PR_SET_SECUREBITS, PR_SET_TIMERSLACK = 25, 26, 27, 28, 29
PR_SET_CHILD_SUBREAPER, PR_GET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS, PR_GET_TID_ADDRESS = 36, 37, 38, 40
PR_SET_THP_DISABLE, PR_GET_THP_DISABLE = 41, 42

_NAME_SIZE = 16
_HIGHEST_SIGNAL = 64
_TSC_ENABLED = 1

# What a plain setting reads before it is set.
_INITIAL = {PR_GET_DUMPABLE: 1, PR_GET_TIMERSLACK: DEFAULT_SLACK}
_PLAIN_READS = (
    PR_GET_DUMPABLE,
    PR_GET_KEEPCAPS,
    PR_GET_TIMING,
    PR_GET_SECCOMP,
    PR_GET_SECUREBITS,
    PR_GET_TIMERSLACK,
    PR_GET_NO_NEW_PRIVS,
    PR_GET_THP_DISABLE,
)


@syscall(PARTIAL, "what a process says of itself; ambient capabilities, secure bits and seccomp are refused")
def prctl(task: Task, option: PrctlOption, argument: Hex, third: ULong, fourth: ULong, fifth: ULong) -> int:
    """prctl(2)."""
    process = task.process
    settings = process_state(process).settings
    if option == PR_SET_NAME:
        task.name = _name_at(task, argument)
        if task is process.tasks[0]:
            process.name = task.name
        return 0
    if option == PR_GET_NAME:
        copy_out(process.space, argument, task.name.encode("utf-8", "surrogateescape").ljust(_NAME_SIZE, b"\0"))
        return 0
    if option in _PLAIN_READS:
        if option in (PR_GET_NO_NEW_PRIVS, PR_GET_THP_DISABLE) and argument | third | fourth | fifth:
            raise LinuxError(EINVAL)
        return settings.get(option, _INITIAL.get(option, 0))
    reader = _POINTER_READS.get(option)
    if reader is not None:
        write_struct(task, argument, INT, settings.get(option, reader))
        return 0
    if option == PR_GET_TID_ADDRESS:
        write_struct(task, argument, WORD, task.clear_child_tid)
        return 0
    if option == PR_CAPBSET_READ:
        _check_capability(argument)
        return capabilities_of(process.credentials).bound >> argument & 1
    if option == PR_CAPBSET_DROP:
        if not capable(process.credentials, CAP_SETPCAP):
            raise LinuxError(EPERM)
        _check_capability(argument)
        lower_bound(process.credentials, argument)
        return 0
    _write_setting(settings, option, argument, third | fourth | fifth)
    return 0


# Settings that are read through a pointer, with their initial values.
_POINTER_READS = {PR_GET_PDEATHSIG: 0, PR_GET_CHILD_SUBREAPER: 0, PR_GET_TSC: _TSC_ENABLED}


# Settings that have one possible value here.
_AS_IT_IS = ((PR_SET_TIMING, 0), (PR_SET_TSC, _TSC_ENABLED))


def _write_setting(settings: dict[int, int], option: int, value: int, rest: int) -> None:
    """Keep what the matching PR_GET reads; EINVAL for a value, or an option, that does not exist."""
    if option == PR_SET_PDEATHSIG and value <= _HIGHEST_SIGNAL:
        settings[PR_GET_PDEATHSIG] = value
    elif option == PR_SET_DUMPABLE and value <= 1:
        settings[PR_GET_DUMPABLE] = value
    elif option == PR_SET_KEEPCAPS and value <= 1:
        settings[PR_GET_KEEPCAPS] = value
    elif (option, value) in _AS_IT_IS:
        pass
    elif option == PR_SET_TIMERSLACK:
        settings[PR_GET_TIMERSLACK] = value if 0 < value < 1 << 63 else settings.get(INHERITED_SLACK, DEFAULT_SLACK)
    elif option == PR_SET_CHILD_SUBREAPER:
        settings[PR_GET_CHILD_SUBREAPER] = int(value != 0)
    elif option == PR_SET_NO_NEW_PRIVS and value == 1 and not rest:
        settings[PR_GET_NO_NEW_PRIVS] = 1
    elif option == PR_SET_THP_DISABLE and not rest:
        settings[PR_GET_THP_DISABLE] = int(value != 0)
    elif option == PR_SET_SECUREBITS:
        raise LinuxError(EPERM, "the secure bits cannot be changed")
    else:
        raise LinuxError(EINVAL, f"prctl option {option} with {value:#x}")


def _check_capability(number: int) -> None:
    if number > LAST_CAPABILITY:
        raise LinuxError(EINVAL, f"no capability {number}")


def _name_at(task: Task, address: int) -> str:
    """Up to 15 bytes; what is longer is cut."""
    try:
        return fsdecode(read_string(task.process.space, address, _NAME_SIZE))
    except LinuxError as error:
        if error.errno == EFAULT:
            raise
        return fsdecode(copy_in(task.process.space, address, _NAME_SIZE - 1))

"""System calls about the process, its limits, times and settings give what the kernel we run on gives."""

from __future__ import annotations

import errno
import os
import signal
import struct

import pytest

from support.twins import ARENA, Call, call, compare

BAD = 0xDEAD_0000_0000_0000
UNMAPPED = 0x7000_0000
HIGH = 0xABCD_0000_0000
"""Set above an int argument: the kernel does not look there."""


def test_identity() -> None:
    names = ("getpid", "gettid", "getppid", "getpgrp", "getuid", "geteuid", "getgid", "getegid")
    compare(
        *(call(name) for name in names),
        call("getpgid", 0),
        call("getpgid", -5),
        call("getsid", 0),
        call("getresuid", ARENA, ARENA + 4, ARENA + 8),
        call("getresgid", ARENA, ARENA + 4, ARENA + 8),
        call("getresuid", ARENA, UNMAPPED, ARENA + 8),
        call("getgroups", 0, 0),
        call("getgroups", 100, ARENA),
        call("getgroups", -1, ARENA),
    )


def test_changing_identity() -> None:
    keep = -1
    compare(
        call("setfsuid", 77),
        call("setfsuid", -1),
        call("setresuid", keep, keep, 1000),
        call("setreuid", keep, 1000),
        call("getresuid", ARENA, ARENA + 4, ARENA + 8),
        call("setuid", 2000),
        call("setuid", keep),
        call("setreuid", 1000, 0),
        call("setregid", keep, 5),
        call("setgroups", 1, ARENA),
        call("getresuid", ARENA, ARENA + 4, ARENA + 8),
        call("getresgid", ARENA, ARENA + 4, ARENA + 8),
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may take other groups")
def test_groups_of_root() -> None:
    compare(
        call("setgid", 7),
        call("setregid", 8, 9),
        call("getresgid", ARENA, ARENA + 4, ARENA + 8),
        call("setgroups", 3, ARENA, at_0=struct.pack("<3I", 30, 10, 20)),
        call("getgroups", 3, ARENA + 64),
        call("getgroups", 2, ARENA + 64),
        call("setgroups", 70000, ARENA),
        call("setresgid", 1, 2, 3),
        call("getresgid", ARENA, ARENA + 4, ARENA + 8),
    )


def test_process_groups() -> None:
    compare(
        call("setpgid", 0, -1),
        call("setpgid", 0, 0),
        call("getpgrp"),
        call("setsid"),
        call("setpgid", 0, 4_000_000),
        call("setpgid", 4_000_000, 0),
    )
    compare(call("setsid"), call("getsid", 0), call("getpgrp"), call("setsid"), call("setpgid", 0, 0))


def test_resource_limits() -> None:
    nofile, core = 7, 4
    calls = [call("getrlimit", resource, ARENA) for resource in (*range(16), 16, 1 << 31)]
    compare(
        *calls,
        call("setrlimit", core, ARENA, at_0=struct.pack("<QQ", 5, 3)),
        call("setrlimit", core, ARENA, at_0=struct.pack("<QQ", 3, 5)),
        call("prlimit64", 0, core, 0, ARENA + 64),
        call("prlimit64", 0, nofile, ARENA, ARENA + 64, at_0=struct.pack("<QQ", 100, 200)),
        call("prlimit64", 0, nofile, 0, ARENA),
        call("setrlimit", nofile, ARENA, at_0=struct.pack("<QQ", 100, 1 << 40)),
        call("prlimit64", 0, 99, 0, ARENA),
        call("prlimit64", 0, 1, UNMAPPED, 0),
        call("prlimit64", 0, HIGH | core, 0, ARENA),
    )


def test_scheduling() -> None:
    compare(
        call("sched_yield"),
        call("sched_getscheduler", 0),
        call("sched_getscheduler", 4_000_000),
        call("sched_getparam", 0, ARENA),
        call("sched_getparam", 0, 0),
        *(call(f"sched_get_priority_{end}", policy) for end in ("min", "max") for policy in range(-1, 9)),
        call("sched_setscheduler", 0, 3, ARENA, at_0=bytes(4)),
        call("sched_getscheduler", 0),
        call("sched_setscheduler", 0, 3, ARENA, at_0=b"\1\0\0\0"),
        call("sched_setscheduler", 0, 77, ARENA),
        call("sched_setscheduler", 0, 0, 0),
        call("sched_setparam", 0, ARENA, at_0=bytes(4)),
        call("sched_getaffinity", 0, 0, ARENA),
        call("sched_getaffinity", 0, 9, ARENA),
        call("sched_setaffinity", 0, 8, ARENA, at_0=bytes(8)),
        call("sched_setaffinity", 0, 8, ARENA, at_0=b"\1" + bytes(7)),
        call("getcpu", 0, ARENA, 0),
        call("getpriority", 0, 0),
        call("getpriority", 5, 0),
        call("getpriority", 0, 4_000_000),
        call("setpriority", 0, 0, 5),
        call("getpriority", 0, 0),
        call("setpriority", 0, 0, 100),
        call("getpriority", 0, 0),
    )


SCHED_ATTR = struct.Struct("<IIQiIQQQII")
"""size, policy, flags, nice, priority, runtime, deadline, period, util_min, util_max"""


def test_scheduling_attributes() -> None:
    def ask(size: int = 56, policy: int = 0, flags: int = 0, *rest: int, more: bytes = b"", pid: int = 0) -> Call:
        data = SCHED_ATTR.pack(size, policy, flags, *(*rest, 0, 0, 0, 0, 0, 0, 0)[:7]) + more
        return call("sched_setattr", pid, ARENA, 0, at_0=data)

    look = (call("sched_getscheduler", 0), call("getpriority", 0, 0))
    keep_policy, keep_all, clamp = 0x8, 0x18, 0x20
    compare(
        *(one for asked in (
            ask(56, 0, 0, 5), ask(56, 3, 0, 7), ask(56, 5, 0, 30), ask(56, 3, keep_policy, 11), ask(56, 0, 1),
            ask(56, 0, keep_all),
        ) for one in (asked, *look)),
        *(ask(size) for size in (0, 47, 48, 5000)),
        ask(60, more=b"\1\0\0\0"),
        ask(60, more=bytes(4)),
        ask(56, 77),
        ask(56, 1 << 31),
        ask(56, 0, 0, 0, 1),
        ask(56, 1, 0, 0, 0),
        ask(56, 1, 0, 0, 100),
        ask(56, 0, 0x80),
        ask(48, 0, clamp),
        *(ask(56, 6, 0, 0, 0, *times) for times in ((), (1000, 10**7), (10**7, 10**6), (10**4, 99_999))),
        ask(56, 6, 0, 0, 0, 10**4, 1 << 43),
        ask(pid=4_000_000),
        call("sched_setattr", 0, ARENA, 1),
        call("sched_setattr", 0, 0, 0),
        call("sched_setattr", 0, UNMAPPED, 0),
        call("sched_setattr", -1, ARENA, 0),
        call("sched_setscheduler", 0, 6, ARENA, at_0=bytes(4)),
    )  # fmt: skip


def test_priority_of_input_and_output() -> None:
    classes = [kind << 13 | data for kind in range(9) for data in (0, 3, 7, 8)]
    read = [call("ioprio_get", which, 0) for which in (1, 2)]
    compare(
        call("setpgid", 0, 0),
        *read,
        *(one for value in (*classes, 0x12345678, -1) for one in (call("ioprio_set", 1, 0, value), *read)),
        *(call("ioprio_set", which, 0, 0) for which in (0, 4)),
        *(call("ioprio_get", which, 4_000_000) for which in (0, 1, 2, 3, 4)),
        *(call("ioprio_set", which, 4_000_000, 0) for which in (1, 2, 3)),
    )


def test_system_description() -> None:
    compare(call("uname", ARENA), call("uname", UNMAPPED), call("personality", 0xFFFF_FFFF))
    compare(call("personality", 0x0020000), call("uname", ARENA), call("personality", -1))


def test_prctl() -> None:
    get = [call("prctl", option, ARENA, 0, 0, 0) for option in (2, 15, 16, 37, 25)]
    plain = [call("prctl", option, 0, 0, 0, 0) for option in (3, 7, 13, 21, 27, 30, 39, 42, 71, 999, -1)]
    compare(
        *get,
        *plain,
        call("prctl", 15, ARENA, at_0=b"a name that is far too long\0"),
        call("prctl", 16, ARENA + 64),
        call("prctl", 15, UNMAPPED),
        call("prctl", 1, 15, 0, 0, 0),
        call("prctl", 2, ARENA),
        call("prctl", 1, 65, 0, 0, 0),
        call("prctl", 4, 0),
        call("prctl", 3),
        call("prctl", 4, 2),
        call("prctl", 38, 1, 0, 0, 0),
        call("prctl", 39, 0, 0, 0, 0),
        call("prctl", 38, 0, 0, 0, 0),
        call("prctl", 29, 1234),
        call("prctl", 30),
        call("prctl", 36, 1),
        call("prctl", 37, ARENA),
        call("prctl", 41, 1, 0, 0, 0),
        call("prctl", 42, 0, 0, 0, 0),
        call("prctl", 23, 41),
        call("prctl", 0x53564D41, 0, ARENA, 4096, 0),
    )


def test_arch_prctl() -> None:
    compare(
        call("arch_prctl", 0x1001, 0x12345678),
        call("arch_prctl", 0x1004, ARENA),
        call("arch_prctl", 0x1001, 0x7FFFFFFFF000),
        call("arch_prctl", 0x1002, 1 << 63),
        call("arch_prctl", 0x1004, UNMAPPED),
        call("arch_prctl", 0x3001, ARENA),
        call("arch_prctl", 0x5001, ARENA),
        call("arch_prctl", HIGH | 0x9999, ARENA),
    )


def test_capabilities() -> None:
    header = struct.pack("<Ii", 0x20080522, 0)
    old = struct.pack("<Ii", 0x19980330, 0)
    compare(
        call("capget", ARENA, 0, at_0=bytes(8)),
        call("capget", ARENA, ARENA + 64, at_0=bytes(8)),
        call("capget", ARENA, 0, at_0=header),
        call("capget", ARENA, ARENA + 64, at_0=struct.pack("<Ii", 0x20080522, -1)),
        call("capget", UNMAPPED, 0),
        call("capset", ARENA, ARENA + 64, at_0=header, at_64=struct.pack("<6I", 1, 0, 0, 0, 0, 0)),
        call("capset", ARENA, UNMAPPED, at_0=old),
    )


def test_signal_actions_and_masks() -> None:
    action = struct.pack("<4Q", 0x402000, 0xFFFF_FFFF_FFFF_FFFF, 0x403000, 0xFFFF_FFFF_FFFF_FFFF)
    usr1, usr2 = signal.SIGUSR1, signal.SIGUSR2
    both = (1 << usr1 - 1 | 1 << usr2 - 1).to_bytes(8, "little")
    compare(
        call("rt_sigaction", usr2, ARENA, 0, 8, at_0=action),
        call("rt_sigaction", usr2, 0, ARENA + 64, 8),
        call("rt_sigaction", 9, ARENA, 0, 8),
        call("rt_sigaction", 9, 0, ARENA + 64, 8),
        call("rt_sigaction", 65, 0, ARENA, 8),
        call("rt_sigaction", 0, 0, ARENA, 8),
        call("rt_sigaction", usr2, ARENA, 0, 16),
        call("rt_sigaction", usr2, UNMAPPED, 0, 8),
        call("rt_sigprocmask", 0, ARENA, ARENA + 64, 8, at_0=both),
        call("rt_sigprocmask", 7, ARENA, ARENA + 64, 8),
        call("rt_sigprocmask", 7, 0, ARENA + 64, 8),
        call("rt_sigprocmask", 0, ARENA, ARENA + 64, 8, at_0=b"\xff" * 8),
        call("rt_sigprocmask", 0, 0, ARENA + 64, 8),
        call("rt_sigprocmask", 1, ARENA, 0, 8, at_0=b"\xff" * 8),
        call("rt_sigprocmask", 2, ARENA, ARENA + 64, 4),
        call("rt_sigpending", ARENA, 8),
        call("rt_sigpending", ARENA, 9),
    )


def test_signals_sent_to_oneself_while_blocked() -> None:
    usr1, chld, rt = int(signal.SIGUSR1), int(signal.SIGCHLD), 40
    block = (1 << usr1 - 1 | 1 << chld - 1 | 1 << rt - 1).to_bytes(8, "little")
    now = struct.pack("<qq", 0, 0)
    wait = call("rt_sigtimedwait", ARENA, ARENA + 0x100, ARENA + 0x80, 8, at_0=block, at_0x80=now)
    compare(
        call("rt_sigprocmask", 0, ARENA, 0, 8, at_0=block),
        wait,
        call("tkill", -1, usr1),
        call("tgkill", 0, 1, usr1),
        call("tgkill", 4_000_000, 4_000_000, usr1),
        call("kill", 4_000_000, 0),
        call("rt_sigpending", ARENA + 64, 8),
        call("rt_sigtimedwait", ARENA, 0, ARENA + 0x80, 8, at_0x80=struct.pack("<qq", 0, 1_000_000_000)),
        call("rt_sigtimedwait", ARENA, 0, ARENA + 0x80, 4),
    )


def test_alternate_stack() -> None:
    def stack(address: int, flags: int, size: int) -> bytes:
        return struct.pack("<QIIQ", address, flags, 0, size)

    compare(
        call("sigaltstack", ARENA, 0, at_0=stack(0, 2, 0)),  # the test runner has one
        call("sigaltstack", 0, ARENA),
        call("sigaltstack", ARENA, ARENA + 64, at_0=stack(UNMAPPED, 0, 2047)),
        call("sigaltstack", ARENA, ARENA + 64, at_0=stack(UNMAPPED, 4, 8192)),
        call("sigaltstack", ARENA, ARENA + 64, at_0=stack(UNMAPPED, 0, 1 << 20)),
        call("sigaltstack", 0, ARENA + 64),
        call("sigaltstack", ARENA, ARENA + 64, at_0=stack(UNMAPPED, 2, 1 << 20)),
        call("sigaltstack", UNMAPPED, ARENA),
        call("sigaltstack", 0, ARENA + 64),
    )


def test_futex_without_other_threads() -> None:
    private, wait, wake, requeue, cmp_requeue, wake_op, bitset = 128, 0, 1, 3, 4, 5, 9
    short = struct.pack("<qq", 0, 1000)
    compare(
        call("futex", ARENA, wait | private, 1, 0, 0, 0),
        call("futex", ARENA + 2, wait | private, 0, 0, 0, 0),
        call("futex", ARENA, wait, 0, ARENA + 64, 0, 0, at_64=short),
        call("futex", ARENA, bitset | private, 0, ARENA + 64, 0, 1, at_64=bytes(16)),
        call("futex", ARENA, bitset | private, 0, 0, 0, 0),
        call("futex", ARENA, wait, 0, ARENA + 64, 0, 0, at_64=struct.pack("<qq", -1, 0)),
        call("futex", ARENA, wait, 0, UNMAPPED, 0, 0),
        call("futex", UNMAPPED, wait | private, 0, 0, 0, 0),
        call("futex", UNMAPPED, wake | private, 1, 0, 0, 0),
        call("futex", ARENA, wake, 10, 0, 0, 0),
        call("futex", ARENA, requeue, 1, 1, ARENA + 8, 0),
        call("futex", ARENA, cmp_requeue, 1, 1, ARENA + 8, 5),
        call("futex", ARENA, cmp_requeue, 1, 1, ARENA + 8, 0),
        call("futex", ARENA, requeue, -1, 1, ARENA + 8, 0),
        call("futex", ARENA, wake_op, 1, 1, ARENA + 8, 1 << 28 | 5 << 12 | 3, at_8=b"\7\0\0\0"),
        call("futex", ARENA, wake_op, 1, 1, ARENA + 8, 9 << 28 | 4 << 12),
        call("futex", ARENA, 2, 1, 0, 0, 0),
        call("futex", ARENA, 77, 1, 0, 0, 0),
        call("futex", ARENA, wait | 256, 0, 0, 0, 0),
    )


def test_sleeping() -> None:
    compare(
        call("nanosleep", ARENA, 0, at_0=struct.pack("<qq", 0, 1000)),
        call("nanosleep", ARENA, 0, at_0=struct.pack("<qq", 0, 1_000_000_000)),
        call("nanosleep", ARENA, 0, at_0=struct.pack("<qq", -1, 0)),
        call("nanosleep", UNMAPPED, 0),
        call("clock_nanosleep", 1, 0, ARENA, 0, at_0=struct.pack("<qq", 0, 1000)),
        call("clock_nanosleep", 1, 1, ARENA, 0, at_0=struct.pack("<qq", 0, 1000)),
        call("clock_nanosleep", 3, 0, ARENA, 0),
        call("clock_nanosleep", 4, 0, ARENA, 0),
        call("clock_nanosleep", 99, 0, ARENA, 0),
    )


def test_clocks_there_are() -> None:
    compare(
        *(call("clock_getres", clock, ARENA) for clock in (*range(8), 10, 11, 12, -1, -2, 99)),
        call("clock_getres", 0, 0),
        call("clock_gettime", 99, ARENA),
        call("clock_gettime", 0, UNMAPPED),
        call("gettimeofday", 0, 0),
        call("gettimeofday", 0, ARENA),
        call("getitimer", 0, ARENA),
        call("getitimer", 3, ARENA),
        call("setitimer", 0, ARENA, ARENA + 64, at_0=struct.pack("<4q", 0, 0, 0, 1_000_000)),
        call("setitimer", 5, ARENA, ARENA + 64, at_0=bytes(32)),
        call("alarm", 0),
        call("alarm", 1000),
        call("alarm", 0),
    )


def test_memory_calls() -> None:
    compare(
        call("mincore", ARENA + 1, 4096, ARENA),
        call("mincore", ARENA, 4 * 4096, UNMAPPED),
        call("mincore", UNMAPPED, 4096, ARENA),
        call("munmap", ARENA + 1, 4096),
        call("munmap", UNMAPPED, 4096),
        call("mprotect", UNMAPPED, 4096, 1),
        call("madvise", ARENA, 4096, 999),
        call("madvise", ARENA, 4096, HIGH | 4),
        call("msync", ARENA, 4096, 5),
        call("msync", ARENA, 4096, 4),
        call("mlock2", ARENA, 4096, 2),
        call("mremap", ARENA + 1, 4096, 4096, 0, 0),
        call("mmap", 0, 4096, 3, 2, 0xFFFF_FFFF, 0),
        call("mmap", 0, 0, 3, 0x22, -1, 0),
        call("mmap", 0, 4096, 3, 0x22, -1, 5),
        call("mmap", ARENA, 4096, 3, 0x100022, -1, 0),
        call("membarrier", 1, 0, 0),
        call("membarrier", 8, 0, 0),
        call("membarrier", 16, 0, 0),
        call("membarrier", 8, 0, 0),
        call("membarrier", 3, 0, 0),
        call("membarrier", 0, 1, 0),
    )


def test_settings_of_a_thread() -> None:
    compare(
        call("set_robust_list", ARENA, 24),
        call("set_robust_list", ARENA, 23),
        call("get_robust_list", 0, ARENA + 64, ARENA + 72),
        call("get_robust_list", 4_000_000, ARENA + 64, ARENA + 72),
        call("set_tid_address", ARENA),
        call("prctl", 40, ARENA + 64),
        call("restart_syscall"),
        call("wait4", -1, 0, 0, 0),
        call("wait4", -1, 0, 0x80, 0),
        call("waitid", 0, 0, 0, 4, 0),
        call("waitid", 0, 0, 0, 0, 0),
        call("getrandom", ARENA, 16, 8),
        call("getrandom", ARENA, 16, 6),
        call("getrandom", ARENA, 0, 0),
        call("getrandom", UNMAPPED, 16, 0),
        call("getrandom", UNMAPPED, 0, 0),
    )


@pytest.mark.parametrize("number", [462 + 2000, 335 + 5, 600])
def test_a_number_without_a_call(number: int) -> None:
    from support.twins import Guest

    guest = Guest()
    guest.context.prepare(number, ())
    guest.calls.dispatch(guest.task)
    assert guest.result == -errno.ENOSYS
    assert guest.calls.unimplemented == {f"syscall_{number:#x}": 1}

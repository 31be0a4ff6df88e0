"""How calls are shown: against strace(1) itself where it is installed, and case by case."""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest

from loadstone.linux.strace.sockets import name_of
from loadstone.linux.strace.structs import signal_set
from loadstone.linux.strace.values import quote
from support.run import loadstone
from support.twins import ARENA, Guest


def shown(name: str, *arguments: int, **before: bytes) -> str:
    """The text of one call."""
    guest, seen = Guest(), list[Any]()
    for key, data in before.items():
        guest.put(int(key.removeprefix("at_"), 0), data)
    guest.events.subscribe(seen.append, ["syscall"])
    guest.call(name, *(argument & (1 << 64) - 1 for argument in arguments))
    text: str = seen[-1].text
    return text


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"plain", '"plain"'),
        (b'a"b\\c', '"a\\"b\\\\c"'),
        (b"\t\n\v\f\r", '"\\t\\n\\v\\f\\r"'),
        (b"\0", '"\\0"'),
        (b"\x001", '"\\0001"'),
        (b"\x7fELF", '"\\177ELF"'),
        (b"\xff9", '"\\3779"'),
    ],
)
def test_strings_are_c_literals(data: bytes, text: str) -> None:
    assert quote(data) == text


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"\x01\0/run/x\0junk", '{sa_family=AF_UNIX, sun_path="/run/x"}'),
        (b"\x01\0\0abc", '{sa_family=AF_UNIX, sun_path=@"abc"}'),
        (b"\x01\0", "{sa_family=AF_UNIX}"),
        (
            b"\x02\0\0P\x7f\0\0\x01" + bytes(8),
            '{sa_family=AF_INET, sin_port=htons(80), sin_addr=inet_addr("127.0.0.1")}',
        ),
        (
            b"\x0a\0\x1f\x90" + bytes(4) + bytes(15) + b"\x01" + bytes(4),
            "{sa_family=AF_INET6, sin6_port=htons(8080), sin6_flowinfo=htonl(0), "
            'inet_pton(AF_INET6, "::1", &sin6_addr), sin6_scope_id=0}',
        ),
    ],
)
def test_addresses_of_sockets(data: bytes, text: str) -> None:
    """As strace 6.1 shows them, copied from its output."""
    assert name_of(data) == text


def test_signal_sets() -> None:
    assert signal_set(0) == "[]"
    assert signal_set(1 | 2) == "[HUP INT]"
    assert signal_set((1 << 64) - 1 & ~(1 << 8 | 1 << 18)) == "~[KILL STOP]"
    assert signal_set(1 << 31 | 1 << 33) == "[RTMIN RT_2]"


@pytest.mark.parametrize(
    ("line", "call", "memory"),
    [
        ("mmap(NULL, 0, PROT_NONE, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0)", ("mmap", 0, 0, 0, 0x22, -1, 0), {}),
        ("mremap(0x10000000, 4096, 0, MREMAP_MAYMOVE)", ("mremap", ARENA, 4096, 0, 1, 0), {}),
        ("madvise(0x10000000, 0, MADV_DONTNEED)", ("madvise", ARENA, 0, 4), {}),
        ("brk(NULL)", ("brk", 0), {}),
        ("kill(4000000, SIGTERM)", ("kill", 4000000, 15), {}),
        ("tgkill(1, 4000000, SIGRT_8)", ("tgkill", 1, 4000000, 40), {}),
        ("futex(0x10000000, FUTEX_WAKE_PRIVATE, 1)", ("futex", ARENA, 129, 1, 0, 0, 0), {}),
        ("futex(0x10000000, FUTEX_WAIT, 7, NULL)", ("futex", ARENA, 0, 7, 0, 0, 0), {}),
        ("arch_prctl(ARCH_SET_FS, 0x5)", ("arch_prctl", 0x1002, 5), {}),
        ("getuid()", ("getuid",), {}),
        ("setuid(-1)", ("setuid", -1), {}),
        ("rseq(NULL, 0x20, 2, 0x53053053)", ("rseq", 0, 32, 2, 0x53053053), {}),
        ("clock_getres(CLOCK_MONOTONIC, {tv_sec=0, tv_nsec=1})", ("clock_getres", 1, ARENA), {}),
        (
            "nanosleep({tv_sec=0, tv_nsec=5}, NULL)",
            ("nanosleep", ARENA, 0),
            {"at_0": struct.pack("<qq", 0, 5)},
        ),
        (
            "rt_sigprocmask(SIG_BLOCK, [HUP], [], 8)",
            ("rt_sigprocmask", 0, ARENA, ARENA + 64, 8),
            {"at_0": struct.pack("<Q", 1)},
        ),
        (
            "rt_sigaction(SIGUSR1, {sa_handler=0x402000, sa_mask=[INT], sa_flags=SA_RESTORER|SA_RESTART, "
            "sa_restorer=0x403000}, NULL, 8)",
            ("rt_sigaction", 10, ARENA, 0, 8),
            {"at_0": struct.pack("<4Q", 0x402000, 0x14000000, 0x403000, 2)},
        ),
        (
            "setrlimit(RLIMIT_CORE, {rlim_cur=0, rlim_max=0})",
            ("setrlimit", 4, ARENA),
            {"at_0": bytes(16)},
        ),
        ("sigaltstack(NULL, {ss_sp=NULL, ss_flags=SS_DISABLE, ss_size=0})", ("sigaltstack", 0, ARENA), {}),
        ("mprotect(0x10000000, 4096, PROT_READ|PROT_WRITE|0x80)", ("mprotect", ARENA, 4096, 0x83), {}),
        ("select(268435456, [1], NULL, NULL, NULL)", ("select", 1 << 28, ARENA, 0, 0, 0), {"at_0": b"\2" + bytes(127)}),
        ("io_uring_setup(0x1, 0x2, 0x0, 0x0, 0x0, 0x0)", ("io_uring_setup", 1, 2), {}),
    ],
)
def test_calls(line: str, call: tuple[Any, ...], memory: dict[str, bytes]) -> None:
    assert shown(*call, **memory) == line


def test_long_strings_are_cut() -> None:
    assert shown("prctl", 15, ARENA, at_0=b"x" * 40 + b"\0") == 'prctl(PR_SET_NAME, "xxxxxxxxxxxxxxx"...)'


def test_looking_does_not_touch_memory() -> None:
    guest = Guest()
    guest.space.map(0x2000_0000, 4096, 3, 0x32)
    before = guest.space.minor_faults
    guest.events.subscribe(lambda event: None, ["syscall"])
    guest.call("rt_sigpending", 0x2000_0000, 99)
    assert guest.space.minor_faults == before


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_a_whole_program_reads_as_strace_shows_it(tmp_path: Path) -> None:
    command = ["/bin/cat", "/etc/passwd", "/nonexistent"]
    theirs, ours = tmp_path / "strace", tmp_path / "loadstone"
    native = subprocess.run(["strace", "-o", theirs, *command], capture_output=True, env={"LC_ALL": "C"}, check=False)
    if b"Operation not permitted" in native.stderr:
        pytest.skip("strace may not trace here")
    loadstone("run", "--trace", "syscall", "-o", str(ours), "--", *command, env={"LC_ALL": "C"})
    assert _normal(ours.read_text()) == _normal(theirs.read_text())


def _normal(text: str) -> list[str]:
    """The lines about system calls, without what differs between any two runs: addresses, numbers of threads."""
    lines = []
    for line in text.splitlines():
        match = re.match(r"(\w+)(\(.*)", line)
        if match is None or match[1] in ("execve", "exit_group", "ioctl", "prlimit64") or " = " not in line:
            continue
        call = re.sub(r"0x[0-9a-f]{6,}", "ADDRESS", line)
        call = re.sub(r"(set_tid_address\(ADDRESS\)\s*)= \d+", r"\1= TID", call)
        call = re.sub(r"getrandom\(.*?, (\d+), ", r"getrandom(BYTES, \1, ", call)
        call = re.sub(r"\)\s+= ", ") = ", call)
        lines.append(call)
    return lines

"""The image oracle: what the real kernel makes of an `execve`, seen through ptrace before the first instruction runs.

`native_exec` brings a child up to that point; then maps, auxiliary vector, stack and registers are read and the process
is killed. The host maps the file and runs nothing of it. About 2 ms each.
A `binfmt_misc` handler registered on the host (qemu-user) is the host's answer too.

Linux x86-64 hosts only; the program may be a 32-bit one.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from loadstone.verify.native_exec import Conditions, Libc, Text, kill, spawn

_NT_PRSTATUS, _NT_PRFPREG, _NT_PRXFPREG = 1, 2, 0x46E62B7F

# struct user_regs_struct, 64-bit (27 words) and 32-bit (17 words), in the kernel's order.
# fmt: off
_REGISTERS_64 = (
    "r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8", "rax", "rcx", "rdx", "rsi", "rdi", "orig_rax",
    "rip", "cs", "eflags", "rsp", "ss", "fs_base", "gs_base", "ds", "es", "fs", "gs",
)
_REGISTERS_32 = (
    "ebx", "ecx", "edx", "esi", "edi", "ebp", "eax", "ds", "es", "fs", "gs", "orig_eax", "eip", "cs", "eflags", "esp",
    "ss",
)
# fmt: on

# /proc/PID/stat: field number (from 1, man 5 proc) of what describes the image.
_STAT_FIELDS = {
    "start_code": 26,
    "end_code": 27,
    "start_stack": 28,
    "start_data": 45,
    "end_data": 46,
    "start_brk": 47,
    "arg_start": 48,
    "arg_end": 49,
    "env_start": 50,
    "env_end": 51,
}


class NativeMapping(NamedTuple):
    """One line of `/proc/PID/maps`."""

    start: int
    end: int
    perms: str  # rwxp
    offset: int
    device: str
    inode: int
    path: str


class NativeImage(NamedTuple):
    """A process image at its first instruction."""

    bits: int  # 64 or 32
    maps: str  # /proc/PID/maps, whole (surrogateescape)
    mappings: tuple[NativeMapping, ...]
    auxv: bytes  # /proc/PID/auxv, whole
    auxiliary_vector: tuple[tuple[int, int], ...]  # (type, value) up to and without AT_NULL
    registers: dict[str, int]  # ptrace's names (32-bit: eax, eip, ...), and fcw, mxcsr
    stack_pointer: int
    stack_top: int  # end of the [stack] mapping
    stack: bytes  # from stack_pointer to stack_top
    stat: dict[str, int]  # start_code end_code start_stack start_data end_data start_brk arg_start arg_end env_*
    name: str  # comm

    @property
    def pc(self) -> int:
        """Address of the first instruction."""
        return self.registers["rip" if self.bits == 64 else "eip"]

    def argv(self) -> list[bytes]:
        """The arguments, from the strings on the stack."""
        return self._strings(self.stat["arg_start"], self.stat["arg_end"])

    def envp(self) -> list[bytes]:
        """The environment, from the strings on the stack."""
        return self._strings(self.stat["env_start"], self.stat["env_end"])

    def _strings(self, start: int, end: int) -> list[bytes]:
        return self.stack[start - self.stack_pointer : end - self.stack_pointer].split(b"\0")[:-1]


class NativeProcess:
    """A traced process that stands at its first instruction. Made by `native_process`, dead after its `with`.

    Usable only in the thread that made it (ptrace).
    """

    def __init__(self, pid: int, libc: Libc) -> None:
        self.pid = pid
        self._libc = libc

    def maps(self) -> str:
        """`/proc/PID/maps`."""
        return os.fsdecode(self._proc("maps"))

    def mappings(self) -> tuple[NativeMapping, ...]:
        """`/proc/PID/maps`, line by line."""
        return parse_maps(self.maps())

    def auxv(self) -> bytes:
        """`/proc/PID/auxv`."""
        return self._proc("auxv")

    def memory(self, address: int, length: int) -> bytes:
        """Bytes of the process; fewer where something is not mapped, none for addresses in the kernel's half."""
        if address >= 1 << 63:
            return b""
        fd = os.open(f"/proc/{self.pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
        try:
            data = b""
            while len(data) < length:
                more = os.pread(fd, length - len(data), address + len(data))
                if not more:
                    break
                data += more
            return data
        except OSError:
            return data
        finally:
            os.close(fd)

    def resident(self, start: int, end: int) -> list[int]:
        """`/proc/PID/pagemap` of [start, end): one 64-bit entry a page (bit 63 present; frame numbers need root)."""
        fd = os.open(f"/proc/{self.pid}/pagemap", os.O_RDONLY | os.O_CLOEXEC)
        try:
            data = os.pread(fd, (end - start) // 4096 * 8, start // 4096 * 8)
        finally:
            os.close(fd)
        return [entry for (entry,) in struct.iter_unpack("<Q", data)]

    def registers(self) -> dict[str, int]:
        """General registers by ptrace's names, and `fcw`, `mxcsr`."""
        general = self._libc.register_set(self.pid, _NT_PRSTATUS, 27 * 8)
        names, code = (_REGISTERS_64, "<27Q") if len(general) == 27 * 8 else (_REGISTERS_32, "<17I")
        values = dict(zip(names, struct.unpack(code, general), strict=True))
        # The FXSAVE image; a 32-bit process has it under another number.
        floating = self._libc.register_set(self.pid, _NT_PRFPREG if code == "<27Q" else _NT_PRXFPREG, 512)
        values["fcw"], values["mxcsr"] = struct.unpack_from("<H22xI", floating)
        return values

    def stat(self) -> tuple[str, dict[str, int]]:
        """comm, and the image's addresses from `/proc/PID/stat`."""
        line = os.fsdecode(self._proc("stat"))
        name, _, rest = line.partition("(")[2].rpartition(")")
        fields = rest.split()
        return name, {key: int(fields[number - 3]) for key, number in _STAT_FIELDS.items()}

    def image(self) -> NativeImage:
        """Everything above, read at once."""
        registers = self.registers()
        bits = 64 if "rip" in registers else 32
        maps = self.maps()
        mappings = parse_maps(maps)
        pointer = registers["rsp" if bits == 64 else "esp"]
        top = next((m.end for m in mappings if m.path == "[stack]"), pointer)
        auxv = self.auxv()
        name, stat = self.stat()
        stack = self.memory(pointer, top - pointer)
        vector = parse_auxv(auxv, bits)
        return NativeImage(bits, maps, mappings, auxv, vector, registers, pointer, top, stack, stat, name)

    def kill(self) -> None:
        """End the process and reap it; harmless when it is already gone."""
        if self.pid:
            pid, self.pid = self.pid, 0
            kill(pid)

    def _proc(self, name: str) -> bytes:
        fd = os.open(f"/proc/{self.pid}/{name}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            pieces = []
            while piece := os.read(fd, 1 << 16):
                pieces.append(piece)
            return b"".join(pieces)
        finally:
            os.close(fd)


def native_image(
    path: Text,
    argv: Sequence[Text],
    envp: Sequence[Text] | Mapping[str, str] = (),
    *,
    cwd: Text | None = None,
    stack_limit: int | None = None,
    uid: int | None = None,
) -> NativeImage:
    """The process image the kernel builds for `execve(path, argv, envp)`.

    Args:
        path: the file; not searched in PATH.
        argv: any bytes without NUL, also none at all.
        envp: `NAME=value` strings as they are, or a mapping.
        cwd: directory to start in.
        stack_limit: soft RLIMIT_STACK in bytes, -1 for unlimited; None leaves the caller's.
        uid: user and group to become first (needs root); None stays.

    Raises:
        NativeFailure: the errno or the signal with which the exec failed.
        HostError: the host cannot do it (no ptrace, no permission, not x86-64 Linux).
    """
    with native_process(path, argv, envp, cwd=cwd, stack_limit=stack_limit, uid=uid) as process:
        return process.image()


@contextmanager
def native_process(
    path: Text,
    argv: Sequence[Text],
    envp: Sequence[Text] | Mapping[str, str] = (),
    *,
    cwd: Text | None = None,
    stack_limit: int | None = None,
    uid: int | None = None,
    randomize: bool = False,
) -> Iterator[NativeProcess]:
    """As `native_image`, for looking at more than the image holds; the process is killed at the end of the `with`.

    With `randomize` the host's address-space randomisation is left on.
    """
    libc = Libc()
    if isinstance(envp, Mapping):
        envp = [f"{name}={value}" for name, value in envp.items()]
    exec_ = libc.prepare_exec(_bytes(path), [_bytes(word) for word in argv], [_bytes(word) for word in envp])
    process = NativeProcess(spawn(libc, exec_, Conditions(cwd, stack_limit, uid, randomize)), libc)
    try:
        yield process
    finally:
        process.kill()


def parse_maps(text: str) -> tuple[NativeMapping, ...]:
    """The lines of a `/proc/PID/maps` (proc(5)); paths as shown, newlines as `\\012`."""
    found = []
    for line in text.splitlines():
        fields = line.split(" ", 5)
        start, _, end = fields[0].partition("-")
        path = fields[5].lstrip(" ") if len(fields) > 5 else ""
        found.append(
            NativeMapping(int(start, 16), int(end, 16), fields[1], int(fields[2], 16), fields[3], int(fields[4]), path)
        )
    return tuple(found)


def parse_auxv(data: bytes, bits: int) -> tuple[tuple[int, int], ...]:
    """(type, value) pairs up to AT_NULL."""
    pairs = []
    for kind, value in struct.iter_unpack("<QQ" if bits == 64 else "<II", data):
        if not kind:
            break
        pairs.append((kind, value))
    return tuple(pairs)


def _bytes(text: Text) -> bytes:
    return os.fsencode(text)

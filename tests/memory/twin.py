"""One sequence of mapping operations, performed by the real kernel and by an AddressSpace, compared step by step.

The native side is `mapper.c`; our side starts as a copy of the mappings the native program reports before the first
operation, so that every address, every merge and every line of /proc/PID/maps must agree from there on.
"""

from __future__ import annotations

import os
import re
import resource
import subprocess
from collections.abc import Sequence
from typing import NamedTuple

import pytest

from loadstone.errors import LinuxError
from loadstone.machine.physical import PhysicalMemory
from loadstone.machine.shootdown import Shootdown
from loadstone.memory import fault
from loadstone.memory.accounting import Commitment, Limits
from loadstone.memory.address_space import AddressSpace
from loadstone.memory.flags import MAP_ANONYMOUS
from loadstone.memory.page_cache import PageCache
from loadstone.memory.placement import Layout
from loadstone.memory.vma import (
    ACCOUNT,
    DONTEXPAND,
    EXEC,
    GROWSDOWN,
    MAYEXEC,
    MAYREAD,
    MAYSHARE,
    MAYWRITE,
    PAGE,
    READ,
    SHARED,
    WRITE,
    AnonVma,
    Vma,
)

SHOWING = ("maps", "stat")
LINE = re.compile(r"([0-9a-f]+)-([0-9a-f]+) (\S{4}) ([0-9a-f]+) ([0-9a-f]+):([0-9a-f]+) (\d+)\s*(.*)")


class Op(NamedTuple):
    """An operation's name and its arguments."""

    name: str
    arguments: tuple[int, ...] = ()

    def __str__(self) -> str:
        return " ".join([self.name, *map(hex, self.arguments)])


class HostFile:
    """A file of the host as a Backing: its bytes as they are now, so that what the native side writes is not seen."""

    writeback = True

    def __init__(self, path: str) -> None:
        self.path = path
        status = os.stat(path)
        self.device, self.inode = status.st_dev, status.st_ino
        self.pages = None
        self.huge_aligned = _aligns_huge(path)
        with open(path, "rb") as file:
            self.data = bytearray(file.read())
        self.size = len(self.data)
        self.written: list[int] = []

    def read_pages(self, index: int, target: memoryview) -> None:
        target[:] = self.data[index * PAGE : index * PAGE + len(target)].ljust(len(target), b"\0")

    def write_page(self, index: int, page: memoryview) -> None:
        self.written.append(index)
        end = min(self.size, (index + 1) * PAGE)
        self.data[index * PAGE : end] = page[: end - index * PAGE]


class Unchanging:
    """What a mapping of the native program's own shows in the maps; nobody touches its pages."""

    writeback = True
    huge_aligned = False
    size = 1 << 40

    def __init__(self, device: int, inode: int) -> None:
        self.device, self.inode, self.pages = device, inode, None


def _aligns_huge(path: str) -> bool:
    """Whether the file system has thp_get_unmapped_area in its file operations."""
    best, kind = "", ""
    with open("/proc/self/mounts") as mounts:
        for line in mounts:
            point, name = line.split()[1:3]
            if os.path.realpath(path).startswith(point.rstrip("/") + "/") and len(point) >= len(best):
                best, kind = point, name
    return kind in ("ext4", "xfs", "btrfs", "ext2", "f2fs", "fuse")


def run_native(program: str, operations: Sequence[Op], files: Sequence[str] = (), *, legacy: bool = False) -> list[str]:
    """What the kernel answers: a string an operation."""
    environment = {"MAPPER_LEGACY": "1"} if legacy else {}
    done = subprocess.run(
        [program, *files],
        input="\n".join(map(str, operations)).encode(),
        capture_output=True,
        env=environment,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, f"mapper exited with {done.returncode}: {done.stdout[-300:]!r}"
    lines = done.stdout.decode("utf-8", "surrogateescape").splitlines(keepends=True)
    answers = []
    position = 0
    for operation in operations:
        end = position
        if operation.name in SHOWING:
            while lines[end] != ".\n":
                end += 1
            answers.append("".join(lines[position:end]))
        else:
            answers.append(lines[end].rstrip("\n"))
        position = end + 1
    return answers


def build_space(maps: str, stat: str, *, legacy: bool = False) -> AddressSpace:
    """An address space with the mappings of `maps`, as the kernel's exec has made them."""
    memory = PhysicalMemory(256 << 20)
    layout = Layout(top_down=not legacy)
    pages = os.sysconf("SC_PHYS_PAGES")
    rlimits = {3: (8 << 20, 8 << 20)}
    for number in (resource.RLIMIT_DATA, resource.RLIMIT_AS, resource.RLIMIT_MEMLOCK):
        soft, hard = resource.getrlimit(number)
        rlimits[number] = (soft % (1 << 64), hard % (1 << 64))
    limits = Limits(Commitment(pages), rlimits, privileged=os.geteuid() == 0, may_map_low=os.geteuid() == 0)
    space = AddressSpace(memory, PageCache(memory), Shootdown(memory), layout, limits)
    fields = stat[stat.rindex(")") + 2 :].split()
    space.start_stack, space.start_data, space.end_data, space.start_brk = (int(fields[n]) for n in (25, 42, 43, 44))
    for line in maps.splitlines():
        match = LINE.fullmatch(line)
        assert match, line
        start, end, offset = int(match[1], 16), int(match[2], 16), int(match[4], 16)
        if start > layout.task_size:
            continue
        name = match[8]
        if name == "[heap]":
            space.brk = end
        _insert(space, start, end, match[3], offset, os.makedev(int(match[5], 16), int(match[6], 16)), match[7], name)
    return space


def _insert(
    space: AddressSpace, start: int, end: int, perms: str, offset: int, device: int, inode: str, name: str
) -> None:
    flags = MAYREAD | MAYWRITE | MAYEXEC
    for letter, flag in zip(perms, (READ, WRITE, EXEC, SHARED | MAYSHARE), strict=True):
        flags |= flag if letter in "rwxs" else 0
    if flags & (WRITE | SHARED) == WRITE:
        flags |= ACCOUNT
    special = name.startswith("[v")
    if special:
        flags |= DONTEXPAND
    if name == "[stack]":
        flags |= GROWSDOWN
    backing = Unchanging(device, int(inode)) if inode != "0" else None
    vma = Vma(start, end, flags, backing, offset if backing else start, path=name if backing else "", file=backing)
    vma.name = name if special else ""
    vma.anon_vma = AnonVma() if flags & WRITE else None
    space.vmas.insert(vma)
    space.usage.add(flags, (end - start) // PAGE)
    if flags & ACCOUNT:
        space.limits.commitment.promised += (end - start) // PAGE


class Model:
    """Our side: performs one operation after another on an AddressSpace."""

    def __init__(self, space: AddressSpace, files: dict[int, HostFile]) -> None:
        self.space = space
        self.files = files
        self.opens = {number: object() for number in files}  # each descriptor is an open of its own

    def perform(self, operation: Op) -> str:
        """The answer, in the words of `mapper.c`."""
        if operation.name == "stat":
            return ""
        try:
            result = getattr(self, operation.name)(*operation.arguments)
        except LinuxError as error:
            result = -error.errno
        if operation.name == "mincore" and isinstance(result, int):
            return f"{result} "
        return str(0 if result is None else result)

    def maps(self) -> str:
        return self.space.render_maps()

    def mmap(self, address: int, length: int, prot: int, flags: int, fd: int = -1, offset: int = 0) -> int:
        file = None if flags & MAP_ANONYMOUS else self.files[fd]
        path = file.path if file else ""
        return self.space.map(address, length, prot, flags, file, offset, path=path, file=file and self.opens[fd])

    def munmap(self, address: int, length: int) -> None:
        self.space.unmap(address, length)

    def mprotect(self, address: int, length: int, prot: int) -> None:
        self.space.protect(address, length, prot)

    def mremap(self, address: int, old: int, new: int, flags: int = 0, target: int = 0) -> int:
        return self.space.remap(address, old, new, flags, target)

    def brk(self, address: int) -> int:
        return self.space.set_brk(address)

    def madvise(self, address: int, length: int, advice: int) -> None:
        self.space.advise(address, length, advice)

    def msync(self, address: int, length: int, flags: int) -> None:
        self.space.sync(address, length, flags)

    def mlock(self, address: int, length: int) -> None:
        self.space.lock(address, length)

    def mlock2(self, address: int, length: int, flags: int) -> None:
        self.space.lock(address, length, on_fault=bool(flags))

    def munlock(self, address: int, length: int) -> None:
        self.space.unlock(address, length)

    def mlockall(self, flags: int) -> None:
        self.space.lock_all(flags)

    def munlockall(self) -> None:
        self.space.unlock_all()

    def rlimit(self, resource: int, soft: int, hard: int) -> None:
        self.space.limits.rlimits[resource] = (soft, hard)

    def read(self, address: int, _: int = 0) -> str:
        return self._touch(address, READ, -1)

    def write(self, address: int, value: int) -> str:
        return self._touch(address, WRITE, value)

    def mincore(self, address: int, length: int) -> str:
        return "0 " + "".join(str(byte) for byte in self.space.resident(address, length))

    def pagemap(self, address: int, length: int) -> str:
        present = [self.space.page_table.entry(page) & 1 for page in range(address, address + length, PAGE)]
        return "0 " + "".join(map(str, present))

    def _touch(self, address: int, access: int, value: int) -> str:
        """What the core does: use the entry if it allows the access, else fault. The byte, and how many faults."""
        table, memory = self.space.page_table, self.space.memory
        entry = table.entry(address)
        faults = 0
        if not entry & 1 or (access == WRITE and not entry & 2):
            bad = fault.resolve(self.space, address, access, 0)
            if bad is not None:
                return f"signal {bad.signal}"
            faults = 1
            entry = table.entry(address)
            assert entry & 1 and (access != WRITE or entry & 2)
        page = memory.page((entry & 0x000F_FFFF_FFFF_F000) >> 12)
        if access == WRITE:
            memory.words[table.find(address)] |= 0x60
            page[address % PAGE] = value
        return f"{page[address % PAGE]} {faults}"


def compare(program: str, operations: Sequence[Op], files: Sequence[str] = (), *, legacy: bool = False) -> AddressSpace:
    """Perform the operations on both sides; fail at the first answer or map that differs. Returns our side.

    A difference has to show twice: when the host happens to write the test's file back to disk, it write-protects the
    pages (page_mkclean), and one fault more is counted. Our side is the same on every run.
    """
    space, difference = _compare_once(program, operations, files, legacy)
    if difference:
        space, again = _compare_once(program, operations, files, legacy)
        if again:
            pytest.fail(again)
    return space


def _compare_once(
    program: str, operations: Sequence[Op], files: Sequence[str], legacy: bool
) -> tuple[AddressSpace, str]:
    """Our side after the operations, and what differs first; nothing is the empty string."""
    script = [Op("maps"), Op("stat")]
    for operation in operations:
        script += [operation, Op("maps")]
    by_path = {path: HostFile(path) for path in files}
    backings = {number: by_path[path] for number, path in enumerate(files, 3)}
    native = run_native(program, script, files, legacy=legacy)
    space = build_space(native[0], native[1], legacy=legacy)
    assert space.render_maps() == native[0], "the copy of the native program's maps is wrong"
    model = Model(space, backings)
    done: list[str] = []
    for operation, expected in zip(script[2:], native[2:], strict=True):
        answer = model.perform(operation)
        done.append(str(operation))
        if _comparable(answer) != _comparable(expected):
            history = "\n  ".join(line for line in done[-60:] if line != "maps")
            return space, f"after\n  {history}\nthe kernel says\n{expected}\nwe say\n{answer}"
    return space, ""


def _comparable(answer: str) -> str:
    """Without the inode numbers of shared anonymous memory, which the whole host counts."""
    return re.sub(r"00:01 \d+ +/dev/zero", "00:01 0 /dev/zero", answer)

"""One process's address space: its VMAs, its page tables and what it is allowed. New, it owns one frame.

What each call does is in the module that is named after it; this class holds the state they share. Modules that short
programs have no use for are imported by the calls that need them: a run pays for each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadstone.events import Events, Map, publish
from loadstone.machine.paging import PageTable
from loadstone.memory import brk, lock, mapping, protect, stack
from loadstone.memory.accounting import Limits, Usage
from loadstone.memory.maps_text import render_maps, vma_name
from loadstone.memory.merge import SPECIAL, prepare_anon_vma
from loadstone.memory.placement import Layout
from loadstone.memory.vma import DONTEXPAND, PAGE_SHIFT, Vma
from loadstone.memory.vma_list import VmaList

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadstone.machine.physical import PhysicalMemory
    from loadstone.machine.shootdown import Shootdown
    from loadstone.memory.backing import Backing, Executable
    from loadstone.memory.fill_ahead import FillAhead
    from loadstone.memory.page_cache import PageCache

__all__ = ["SPECIAL", "AddressSpace", "Layout", "Limits"]


class AddressSpace:
    """What `mm_struct` is to the kernel. Addresses and lengths are in bytes; errors are raised as LinuxError.

    Attributes:
        page_table: its page tables; `page_table.root` is the page directory, the one frame a new space owns.
        vmas: the mappings, in ascending order.
        usage: pages mapped, by kind (`total`, `data`, `stack`, `locked`, …).
        resident_pages: pages in the page tables, the zero frame not counted. The fault path adds to it.
        default_flags: VMA flags of every new mapping (mlockall's MCL_FUTURE).
        read_implies_exec: the personality's READ_IMPLIES_EXEC.
        start_brk, brk: the heap; start_code, end_code, start_data, end_data, start_stack: as exec found them.
        executable: the program that runs here, None before exec; see `execute`.
        owner_ids: (pid, tid, cpu) for events; set by whoever runs a task here.
        fault_around: bytes that a read fault on a file maps at once; one page is pure demand paging.
        fill_ahead: whether and how far faults on new anonymous memory fill the pages that follow; None: they do not.
        guards: the addresses of its guard pages (see memory.guard).
        children_wrote: pages of its that children of forks wrote to (see memory.fork); None before the first fork.
        note: the parent's `children_wrote`, which a child of a fork adds to.
        walks: where sequential walks through new memory will fault next (see memory.fill_ahead).
        scattered: by 2 MiB of addresses, faults on new memory that were of no walk, and how many wrote after a read.
        minor_faults, major_faults: page faults so far, those that ended in a signal included.
        users: the processes that are in it; more than one after vfork.
        at_end: who is told when the last one has left, before its pages go.
    """

    __slots__ = (
        "_resident_peak",
        "at_end",
        "brk",
        "cache",
        "children_wrote",
        "default_flags",
        "end_code",
        "end_data",
        "events",
        "executable",
        "fault_around",
        "fill_ahead",
        "guards",
        "layout",
        "limits",
        "major_faults",
        "memory",
        "minor_faults",
        "note",
        "owner_ids",
        "page_table",
        "read_implies_exec",
        "resident_pages",
        "scattered",
        "shootdown",
        "start_brk",
        "start_code",
        "start_data",
        "start_stack",
        "usage",
        "users",
        "vmas",
        "walks",
    )

    def __init__(
        self,
        memory: PhysicalMemory,
        cache: PageCache,
        shootdown: Shootdown,
        layout: Layout,
        limits: Limits,
        events: Events | None = None,
        *,
        kernel_entry: int = 0,
        fault_around: int = 65536,
        fill_ahead: FillAhead | None = None,
    ) -> None:
        self.memory = memory
        self.cache = cache
        self.shootdown = shootdown
        self.layout = layout
        self.limits = limits
        self.events = events
        self.page_table = PageTable(memory, kernel_entry)
        self.vmas = VmaList()
        self.usage = Usage()
        self.resident_pages = 0
        self._resident_peak = 0
        self.default_flags = 0
        self.read_implies_exec = False
        self.start_brk = self.brk = 0
        self.start_code = self.end_code = self.start_data = self.end_data = self.start_stack = 0
        self.owner_ids = (0, 0, 0)
        self.executable: Executable | None = None
        self.fault_around = fault_around
        self.fill_ahead = fill_ahead
        self.walks: dict[int, int] = {}
        self.scattered: dict[int, tuple[int, int]] = {}
        self.guards: set[int] = set()
        self.children_wrote: set[int] | None = None
        self.note: set[int] | None = None
        self.minor_faults = self.major_faults = 0
        self.users = 1
        self.at_end: tuple[Callable[[AddressSpace], None], ...] = ()
        cache.spaces.append(self)

    def execute(self, file: Executable) -> None:
        """`file` is the program that runs here: nobody may write it (kernel: set_mm_exe_file)."""
        file.deny_write()
        self.executable = file

    def find(self, address: int) -> Vma | None:
        """The VMA that contains `address`."""
        return self.vmas.find(address)

    def find_after(self, address: int) -> Vma | None:
        """The first VMA that ends after `address`: the one that contains it, or the next."""
        return self.vmas.find_after(address)

    def map(
        self,
        address: int,
        length: int,
        prot: int,
        flags: int,
        backing: Backing | None = None,
        offset: int = 0,
        *,
        path: str = "",
        vm_flags: int = 0,
        file: object | None = None,
        access: mapping.FileAccess | None = None,
    ) -> int:
        """mmap. `file` is the open file description (default: the backing), which decides what merges."""
        return mapping.map_area(
            self, address, length, prot, flags, backing, offset, path=path, vm_flags=vm_flags, file=file, access=access
        )

    def unmap(self, start: int, length: int) -> None:
        """munmap."""
        mapping.unmap(self, start, length)

    def protect(self, start: int, length: int, prot: int) -> None:
        """mprotect."""
        protect.protect(self, start, length, prot)

    def remap(self, address: int, old_length: int, new_length: int, flags: int = 0, new_address: int = 0) -> int:
        """mremap; the new address."""
        from loadstone.memory.remap import remap

        return remap(self, address, old_length, new_length, flags, new_address)

    def set_brk(self, address: int) -> int:
        """brk; the break afterwards, which is the old one if it could not be moved."""
        return brk.set_brk(self, address)

    def extend(self, start: int, length: int, vm_flags: int = 0) -> None:
        """Anonymous data in a free range of whole pages: a `.bss` (kernel: vm_brk_flags)."""
        brk.extend(self, start, length, vm_flags)

    def advise(self, start: int, length: int, advice: int) -> None:
        """madvise."""
        from loadstone.memory.advise import advise

        advise(self, start, length, advice)

    def resident(self, start: int, length: int) -> bytes:
        """mincore; a byte a page."""
        from loadstone.memory.residency import resident

        return resident(self, start, length)

    def sync(self, start: int, length: int, flags: int) -> None:
        """msync."""
        from loadstone.memory.residency import sync

        sync(self, start, length, flags)

    def lock(self, start: int, length: int, *, on_fault: bool = False) -> None:
        """mlock; mlock2 with MLOCK_ONFAULT."""
        lock.lock(self, start, length, on_fault=on_fault)

    def unlock(self, start: int, length: int) -> None:
        """munlock."""
        lock.unlock(self, start, length)

    def lock_all(self, flags: int) -> None:
        """mlockall."""
        lock.lock_all(self, flags)

    def unlock_all(self) -> None:
        """munlockall."""
        lock.unlock_all(self)

    def expand_stack(self, vma: Vma, address: int) -> bool:
        """Grow the stack `vma` down to `address`; False if a limit or the guard gap forbids it."""
        return stack.expand_stack(self, vma, address)

    def prepare_anon_vma(self, vma: Vma) -> None:
        """To be called before `vma` gets its first anonymous page: it may share a neighbour's anon_vma."""
        prepare_anon_vma(self, vma)

    def insert_special(self, start: int, length: int, vm_flags: int, name: str, backing: Backing | None = None) -> Vma:
        """A mapping of the kernel's own, as [vdso] and [vvar] (kernel: _install_special_mapping).

        `vm_flags` are added to DONTEXPAND; `backing` holds the pages, in the page cache.
        """
        flags = vm_flags | DONTEXPAND | self.default_flags
        vma = Vma(start, start + length, flags, backing, 0, name=name)
        self.vmas.insert(vma)
        self.usage.add(flags, length >> PAGE_SHIFT)
        self.emit("map", vma, start, start + length)
        return vma

    def clone(self) -> AddressSpace:
        """The copy that fork makes: the same mappings, pages shared until one side writes."""
        from loadstone.memory.fork import clone

        return clone(self)

    def share(self) -> AddressSpace:
        """One process more is in it (CLONE_VM)."""
        self.users += 1
        return self

    def release(self) -> None:
        """A process leaves. With the last one every mapping, page and page table goes (kernel: mmput, exit_mmap).

        No `unmap` is emitted: the exit, or the exec that built another space, has said that all of it goes.
        """
        self.users -= 1
        if self.users:
            return
        for tell in self.at_end:
            tell(self)
        self.events = None
        mapping.remove_all(self)
        self.cache.spaces.remove(self)
        if self.executable is not None:
            self.executable.allow_write()
            self.executable = None

    def render_maps(self) -> str:
        """/proc/PID/maps."""
        return render_maps(self)

    def name_of(self, vma: Vma) -> str:
        """What /proc/PID/maps calls the mapping: a path, "[heap]", "" for anonymous memory."""
        return vma_name(self, vma)

    def charge(self, pages: int) -> None:
        """Have `pages` of memory promised (overcommit); ENOMEM if the machine refuses."""
        self.limits.commitment.charge(pages, self.usage.total, self.limits.privileged)

    @property
    def resident_peak(self) -> int:
        """The most pages that were ever resident at once (VmHWM)."""
        self.note_resident_peak()
        return self._resident_peak

    def note_resident_peak(self) -> None:
        """Remember the resident set before it shrinks."""
        if self.resident_pages > self._resident_peak:
            self._resident_peak = self.resident_pages

    def resident_by_kind(self) -> tuple[int, int, int]:
        """Resident pages: anonymous, of files, of shared memory (RssAnon, RssFile, RssShmem). Walks the tables."""
        from loadstone.memory.residency import by_kind

        return by_kind(self)

    def emit(self, event: str, vma: Vma, start: int, end: int) -> None:
        """Tell who listens that [start, end) of `vma` was mapped, unmapped or protected."""
        if self.events is not None and self.events.map:
            pid, tid, _ = self.owner_ids
            offset = vma.offset + start - vma.start if vma.backing is not None else 0
            record = Map(event, pid, tid, start, end, vma.perms, offset, vma_name(self, vma))
            publish(self.events.map, record)

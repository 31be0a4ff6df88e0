"""`[vdso]`, `[vvar]` and `[vvar_vclock]`: the code that the kernel lends to programs, and the data page it reads.

For the kernel we run on, the code is the host's own, read from our memory at AT_SYSINFO_EHDR (but for `getcpu`, which
makes the system call in place of asking the CPU). Its data page is built here: with the clock mode NONE the
high-resolution clocks fall back to the system call, and the coarse clocks and `time()`, which are read unchecked, come
from the machine's clock. On a core whose time-stamp counter is the host's, the clocks are the host's own
(`follow_host`). Where the data page's layout cannot be verified, and for other kernels, a small vDSO of ours takes its
place whose functions make the system calls.

Layout of the page (include/vdso/datapage.h), offsets from the start of `struct vdso_clock` (`vdso_data` before 6.15):

    +0   seq          u32    odd while the kernel writes
    +4   clock_mode   s32    0 NONE, 1 TSC, 2 PVCLOCK, 3 HVCLOCK
    +8   cycle_last   u64
    +16  max_cycles   u64    only since 6.10
    +16/24 mask u64, mult u32, shift u32
    +32/40 basetime[12]: sec u64, nsec u64 each, by clock id

Two of them lie one behind the other, the second for CLOCK_MONOTONIC_RAW. They start at byte 0, or 128 before 6.15.
"""

from __future__ import annotations

import time
from functools import cache
from struct import pack, pack_into, unpack_from
from typing import TYPE_CHECKING

from loadstone.lean import NamedTuple
from loadstone.linux.exec.auxv import AT_SYSINFO_EHDR
from loadstone.linux.profile import PAGE, own_auxv, read_own_memory

if TYPE_CHECKING:
    from loadstone.clock import Clock
    from loadstone.linux.profile import KernelProfile
    from loadstone.machine.physical import PhysicalMemory
    from loadstone.memory.page_cache import FilePages

NS = 1_000_000_000
CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_REALTIME_COARSE, CLOCK_MONOTONIC_COARSE, CLOCK_BOOTTIME = 0, 1, 5, 6, 7
CLOCK_TAI = 11
VDSO_BASES = 12
_MODE_TSC = (1).to_bytes(4, "little")
_ENDBR64 = b"\xf3\x0f\x1e\xfa"
_CALL_GETCPU = b"\xb8\x35\x01\0\0\x0f\x05\xc3"
_FUNCTION_ALIGNMENT = 16
RNG_PAGE = 2  # [vvar] page with the state of vgetrandom; zeros make it fall back to the system call


class VvarLayout(NamedTuple):
    """Where the two clocks of the data page start, and where `basetime` is in each."""

    start: int
    basetime: int

    @property
    def clock_size(self) -> int:
        """Bytes from one clock to the next."""
        return self.basetime + 16 * VDSO_BASES


LAYOUTS = (VvarLayout(0, 40), VvarLayout(0, 32), VvarLayout(128, 32), VvarLayout(128, 40))


class SpecialPages:
    """The pages behind a special mapping: a file without a name that every process shares (a `Backing`)."""

    device = 0
    inode = 0
    writeback = False
    huge_aligned = False

    def __init__(self, content: bytes) -> None:
        self.pages: FilePages | None = None
        self.content = content
        self.size = len(content)  # a touch past it is SIGBUS, as vvar_fault() has it

    def read_pages(self, index: int, target: memoryview) -> None:
        """Fill `target` from page `index` on."""
        start = index * PAGE
        part = self.content[start : start + len(target)]
        target[: len(part)] = part
        target[len(part) :] = bytes(len(target) - len(part))

    def write_page(self, index: int, page: memoryview) -> None:
        """Nothing: there is no file behind it."""


class VvarPages(SpecialPages):
    """The data page that the vDSO reads, kept right by a machine's clock."""

    def __init__(self, content: bytes, layout: VvarLayout | None, clock: Clock | None) -> None:
        super().__init__(content)
        self._layout = layout
        self._base = layout.start + layout.basetime if layout else -1
        self._clock = clock
        self._host: HostClocks | None = None

    def follow_host(self) -> None:
        """Show the host's clocks, where it reads them off the time-stamp counter: for a core that has the same one."""
        if self._layout is not None:
            host = HostClocks(vvar_address(), self._layout)
            self._host = host if host.usable() else None

    def leave_host(self, memory: PhysicalMemory) -> None:
        """Have the clocks asked of the kernel by everybody from now on: they are not everywhere the host's any more."""
        if self._host is None:
            return
        self._host = None
        frame = self.pages.frames.get(0) if self.pages is not None else None
        if frame is not None:
            self.read_pages(0, memory.page(frame))

    def read_pages(self, index: int, target: memoryview) -> None:
        """Fill `target`, with the time of now in the data page."""
        super().read_pages(index, target)
        if index == 0:
            self._write_times(target)

    def refresh(self, memory: PhysicalMemory) -> None:
        """Bring the data page up to date, if any program has touched it: called before returning to user mode."""
        pages = self.pages
        if pages is None:
            return
        frame = pages.frames.get(0)
        if frame is not None:
            self._write_times(memory.page(frame))

    def _write_times(self, page: memoryview) -> None:
        """The base times of the clocks that are read without a system call."""
        if self._base < 0 or self._clock is None:
            return
        if self._host is not None:
            self._host.copy(page)
            return
        base = self._base
        now, boot = self._clock.realtime_ns(), self._clock.monotonic_ns()
        seconds, rest = divmod(now, NS)
        up, up_rest = divmod(boot, NS)
        pack_into("<QQQQ", page, base, seconds, 0, up, 0)
        pack_into("<QQQQQQ", page, base + 16 * CLOCK_REALTIME_COARSE, seconds, rest, up, up_rest, up, 0)
        pack_into("<QQ", page, base + 16 * CLOCK_TAI, seconds + self._clock.tai_ahead_ns // NS, 0)


class Vdso(NamedTuple):
    """What stands behind a process's special mappings. Shared by all processes of a machine."""

    code: SpecialPages
    vvar: VvarPages
    vclock: SpecialPages
    note: str  # for `doctor`: empty when the host's own is in use, else why not

    def backing(self, name: str) -> SpecialPages:
        """The pages for a special mapping of that name."""
        if name == "[vdso]":
            return self.code
        return self.vvar if name == "[vvar]" else self.vclock

    def refresh(self, memory: PhysicalMemory) -> None:
        """Bring the clock's data page up to date; cheap when nobody has touched it."""
        self.vvar.refresh(memory)


def make_vdso(profile: KernelProfile, clock: Clock | None = None) -> Vdso:
    """The special pages for a machine with that profile and clock: the host's vDSO when live, else ours."""
    sizes = {special.name: special.size for special in profile.special}
    size = sizes.get("[vdso]", 0)
    note = "this profile is not the kernel we run on: a small vDSO of Loadstone's makes the system calls"
    if profile.live:
        code, data, layout = _host_pages(size)
        if code and layout:
            return Vdso(SpecialPages(code), VvarPages(data, layout, clock), SpecialPages(b""), "")
        lack = "vDSO cannot be read" if not code else "vDSO data page has a layout that Loadstone does not know"
        note = f"the host's {lack}: a small vDSO of Loadstone's makes the system calls instead"
    own = own_vdso().ljust(size, b"\0") if size else b""
    return Vdso(SpecialPages(own), VvarPages(bytes(3 * PAGE), None, clock), SpecialPages(b""), note)


@cache
def _host_pages(size: int) -> tuple[bytes, bytes, VvarLayout | None]:
    """What the host lends this process: the vDSO for a guest, its data page, and that page's layout if it is known."""
    code = host_vdso(size)
    snapshot = read_vvar() if code else b""
    layout = find_layout(snapshot, time.time_ns(), time.monotonic_ns()) if snapshot else None
    return asking_the_machine(code), data_page(snapshot, layout) if layout else b"", layout


def host_vdso(size: int) -> bytes:
    """The vDSO of this Python process, `size` bytes; empty when there is none or it cannot be read."""
    for key, address in own_auxv():
        if key == AT_SYSINFO_EHDR:
            try:
                code = read_own_memory(address, size)
            except OSError:
                return b""
            return code if len(code) == size and code[:4] == b"\x7fELF" else b""
    return b""


def asking_the_machine(code: bytes) -> bytes:
    """The vDSO with its one question to the CPU put to the machine: `getcpu` makes the system call.

    The kernel asks by RDPID, or by LSL of a segment whose limit is the number (vdso_read_cpunode). The first is missing
    on a core, or tells the host's CPU; the second needs a descriptor that no core here has. Where the function begins
    with the question, it ends with the call that takes the question's place; elsewhere the answer is CPU 0 of node 0.

        b8 7b 00 00 00 f3 0f c7 f8   mov $0x7b, %eax; rdpid %rax      ->  mov $309, %eax; syscall; ret
        b8 7b 00 00 00 0f 03 c0      mov $0x7b, %eax; lsl %eax, %eax  ->  the same
        f3 0f c7 f8+r                rdpid %r                         ->  31 /r 66 90    xor %r32, %r32; nop
        b8+r 7b 00 00 00 0f 03 /r    mov $0x7b, %r; lsl %r, %r        ->  31 /r 90 in place of the lsl
    """
    result = bytearray(code)
    for question in (b"\xb8\x7b\0\0\0\xf3\x0f\xc7\xf8", b"\xb8\x7b\0\0\0\x0f\x03\xc0"):
        at = code.find(question)
        while at >= 0:
            if not (at - len(_ENDBR64) if code[:at].endswith(_ENDBR64) else at) % _FUNCTION_ALIGNMENT:
                result[at : at + len(_CALL_GETCPU)] = _CALL_GETCPU
            at = code.find(question, at + 1)
    return _on_first_cpu(bytes(result))


def _on_first_cpu(code: bytes) -> bytes:
    """The questions that are left, answered: CPU 0 of node 0."""
    result = bytearray(code)
    at = code.find(b"\xf3\x0f\xc7")
    while at >= 0:
        if code[at + 3] >= 0xF8:
            result[at : at + 4] = bytes((0x31, 0xC0 | (code[at + 3] & 7) * 9, 0x66, 0x90))
        at = code.find(b"\xf3\x0f\xc7", at + 1)
    at = code.find(b"\x7b\0\0\0\x0f\x03")
    while at > 0:
        if 0xB8 <= code[at - 1] < 0xC0 and code[at + 6] >= 0xC0:
            result[at + 4 : at + 7] = bytes((0x31, 0xC0 | (code[at + 6] >> 3 & 7) * 9, 0x90))
        at = code.find(b"\x7b\0\0\0\x0f\x03", at + 1)
    return bytes(result)


def read_vvar() -> bytes:
    """This process's first vvar page; empty when it cannot be read.

    Only an access by ourselves is allowed there, so the kernel copies it: write(2) into a pipe, where a page that
    would raise SIGBUS is EFAULT.
    """
    import ctypes
    import os

    address = vvar_address()
    if not address:
        return b""
    write = ctypes.CDLL(None).write
    write.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t)
    write.restype = ctypes.c_ssize_t
    reader, writer = os.pipe()
    try:
        return os.read(reader, PAGE) if write(writer, address, PAGE) == PAGE else b""
    finally:
        os.close(reader)
        os.close(writer)


def vvar_address() -> int:
    """Where this process has [vvar]; 0 if nowhere."""
    try:
        with open("/proc/self/maps", "rb") as file:
            return next((int(line.split(b"-")[0], 16) for line in file if line.endswith(b"[vvar]\n")), 0)
    except OSError:
        return 0


class HostClocks:
    """The two clocks in the host's own data page, which the host's kernel changes at every tick.

    `address`: of a page that `read_vvar` has read, so that touching it is safe.
    """

    __slots__ = ("_address", "_first", "_size")

    _TRIES = 8

    def __init__(self, address: int, layout: VvarLayout) -> None:
        self._first, self._size = layout.start, 2 * layout.clock_size
        self._address = address + layout.start

    def usable(self) -> bool:
        """Whether both clocks are read off the time-stamp counter alone (VDSO_CLOCKMODE_TSC)."""
        found = self._read()
        return all(found[at + 4 : at + 8] == _MODE_TSC for at in (0, self._size // 2)) if found else False

    def copy(self, page: memoryview) -> None:
        """Bring them up to date in the guest's page."""
        found = self._read()
        if found:
            page[self._first : self._first + self._size] = found

    def _read(self) -> bytes:
        """Both, whole: read twice alike, and no sequence number odd; empty if the kernel is quicker all the time."""
        from ctypes import string_at

        before = string_at(self._address, self._size)
        for _ in range(self._TRIES):
            found = string_at(self._address, self._size)
            if found == before and not (found[0] | found[self._size // 2]) & 1:
                return found
            before = found
        return b""


def find_layout(page: bytes, realtime_ns: int, monotonic_ns: int) -> VvarLayout | None:
    """The layout under which the page's coarse clocks show the time that it is (within two seconds), or None."""
    for layout in LAYOUTS:
        times = layout.start + layout.basetime + 16 * CLOCK_REALTIME_COARSE
        seconds, rest, up, up_rest = unpack_from("<QQQQ", page, times)
        if abs(seconds * NS + rest - realtime_ns) > 2 * NS or abs(up * NS + up_rest - monotonic_ns) > 2 * NS:
            continue
        (plain,) = unpack_from("<Q", page, layout.start + layout.basetime)
        sequence, mode = unpack_from("<Ii", page, layout.start)
        again, second_mode = unpack_from("<Ii", page, layout.start + layout.clock_size)
        if rest < NS > up_rest and abs(plain - seconds) <= 2 and 0 <= mode < 8 and (mode == second_mode):
            return layout if abs(sequence - again) <= 2 else None
    return None


def data_page(snapshot: bytes, layout: VvarLayout) -> bytes:
    """The three pages of [vvar] for a guest: the snapshot without what tells the host's time, clock mode NONE.

    Page 1 belongs to time namespaces (never touched outside one), page 2 to vgetrandom: both are zeros.
    """
    page = bytearray(snapshot)
    for start in (layout.start, layout.start + layout.clock_size):
        page[start : start + layout.clock_size] = bytes(layout.clock_size)
    return bytes(page) + bytes((RNG_PAGE + 1) * PAGE - len(page))


# A vDSO of our own. System-call numbers: arch/x86/entry/syscalls/syscall_64.tbl.
FUNCTIONS = (
    (b"__vdso_clock_gettime", 228),
    (b"__vdso_gettimeofday", 96),
    (b"__vdso_time", 201),
    (b"__vdso_clock_getres", 229),
    (b"__vdso_getcpu", 309),
)


def own_vdso() -> bytes:
    """A shared object of one page whose functions only make the system call.

    ELF header, PT_LOAD, PT_DYNAMIC, PT_GNU_STACK; .hash with one bucket; no symbol versions (libraries then take any).
    """
    names, offsets = bytearray(b"\0linux-vdso.so.1\0"), []
    for name, _ in FUNCTIONS:
        offsets.append(len(names))
        names += name + b"\0"
    count = len(FUNCTIONS) + 1
    dynamic_at = 64 + 3 * 56
    hash_at = dynamic_at + 7 * 16
    symbols_at = (hash_at + 4 * (3 + count) + 7) & -8
    strings_at = symbols_at + 24 * count
    code_at = (strings_at + len(names) + 15) & -16
    # mov eax, number; syscall; ret; int3 to fill 16 bytes
    code = b"".join((b"\xb8" + pack("<I", number) + b"\x0f\x05\xc3").ljust(16, b"\xcc") for _, number in FUNCTIONS)
    size = code_at + len(code)
    symbols = bytes(24) + b"".join(
        pack("<IBBHQQ", offset, 0x12, 0, 1, code_at + 16 * place, 8) for place, offset in enumerate(offsets)
    )
    tags = ((14, 1), (4, hash_at), (5, strings_at), (6, symbols_at), (10, len(names)), (11, 24), (0, 0))
    dynamic = b"".join(pack("<QQ", *tag) for tag in tags)
    chain = pack(f"<{3 + count}I", 1, count, 1, 0, *range(2, count), 0)
    header = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    header += pack("<HHIQQQIHHHHHH", 3, 62, 1, code_at, 64, 0, 0, 64, 56, 3, 0, 0, 0)
    header += pack("<IIQQQQQQ", 1, 5, 0, 0, 0, size, size, PAGE)
    header += pack("<IIQQQQQQ", 2, 4, dynamic_at, dynamic_at, dynamic_at, len(dynamic), len(dynamic), 8)
    header += pack("<IIQQQQQQ", 0x6474E551, 4, 0, 0, 0, 0, 0, 16)
    image = (header + dynamic + chain).ljust(symbols_at, b"\0") + symbols + names
    return (image.ljust(code_at, b"\0") + code).ljust(PAGE, b"\0")

"""The host's vDSO over our data page, called natively: what it answers must be the machine's clock."""

from __future__ import annotations

import ctypes
import mmap
import os
import struct
import time
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

from loadstone.clock import Clock
from loadstone.linux import vdso as subject
from loadstone.linux.profile import KernelProfile, live_profile
from loadstone.machine.physical import PhysicalMemory
from loadstone.memory.page_cache import PageCache
from support.compilers import Compiler
from support.run import loadstone, native

NS = 1_000_000_000


class StoppedClock(Clock):
    """A clock that stands at a time nobody would get by accident."""

    realtime = 1_234_567_890 * NS + 123_456_789
    monotonic = 77_777 * NS + 987_654_321

    def realtime_ns(self) -> int:
        return self.realtime

    def monotonic_ns(self) -> int:
        return self.monotonic


Call = Callable[..., int]


@pytest.fixture
def call() -> Iterator[Call]:
    """`call(name, *arguments)`: a function of the vDSO in a copy of the guest's special mappings."""
    profile = live_profile()
    made = subject.make_vdso(profile, StoppedClock())
    if made.note:
        pytest.skip(made.note)
    area = mmap.mmap(-1, sum(special.size for special in profile.special), prot=7)
    start = ctypes.addressof(ctypes.c_char.from_buffer(area))
    offset = code = 0
    for name, size in profile.special:
        backing = made.backing(name)
        for page in range(0, min(size, backing.size), 4096):
            target = memoryview(bytearray(4096))
            backing.read_pages(page // 4096, target)
            area[offset + page : offset + page + 4096] = bytes(target)
        code = offset if name == "[vdso]" else code
        offset += size
    symbols = ELFFile(BytesIO(made.code.content)).get_section_by_name(".dynsym")
    addresses = {symbol.name: symbol["st_value"] for symbol in symbols.iter_symbols()}

    def caller(name: str, *arguments: object) -> int:
        function = ctypes.CFUNCTYPE(ctypes.c_long, *[ctypes.c_void_p] * len(arguments))(start + code + addresses[name])
        return int(function(*arguments))

    yield caller


def test_time_is_the_machines_clock(call: Call) -> None:
    assert call("__vdso_time", None) == 1_234_567_890


@pytest.mark.parametrize(
    ("clock", "expected"),
    [
        (time.CLOCK_REALTIME, None),
        (time.CLOCK_MONOTONIC, None),
        (5, (1_234_567_890, 123_456_789)),  # CLOCK_REALTIME_COARSE
        (6, (77_777, 987_654_321)),  # CLOCK_MONOTONIC_COARSE
    ],
)
def test_coarse_clocks_are_ours_and_others_make_the_system_call(
    call: Call, clock: int, expected: tuple[int, int] | None
) -> None:
    result, before = (ctypes.c_long * 2)(), time.clock_gettime_ns(clock)
    assert call("__vdso_clock_gettime", clock, ctypes.addressof(result)) == 0
    if expected is None:  # outside a machine the system call is the host's
        assert before <= result[0] * NS + result[1] <= time.clock_gettime_ns(clock)
    else:
        assert tuple(result) == expected


def test_gettimeofday_and_getres(call: Call) -> None:
    result, zone, before = (ctypes.c_long * 2)(), (ctypes.c_int * 2)(5, 5), int(time.time())
    assert call("__vdso_gettimeofday", ctypes.addressof(result), ctypes.addressof(zone)) == 0
    assert before <= result[0] <= time.time()
    assert list(zone) == [0, 0]
    assert call("__vdso_clock_getres", time.CLOCK_MONOTONIC, ctypes.addressof(result)) == 0
    assert tuple(result) == (0, round(time.clock_getres(time.CLOCK_MONOTONIC) * NS))


def test_the_code_is_the_hosts_own() -> None:
    with open("/proc/self/maps") as maps:
        line = next(line for line in maps if line.endswith("[vdso]\n"))
    start, end = (int(part, 16) for part in line.split()[0].split("-"))
    assert subject.host_vdso(end - start) == ctypes.string_at(start, end - start)


def test_the_data_page_tells_nothing_of_the_host() -> None:
    made = subject.make_vdso(live_profile(), StoppedClock())
    snapshot = subject.read_vvar()
    if made.note or not snapshot:
        pytest.skip(made.note or "the vvar page cannot be read")
    again = subject.make_vdso(live_profile(), StoppedClock())
    assert again.vvar.content == made.vvar.content
    (cycles,) = struct.unpack_from("<Q", snapshot, 8)
    assert cycles.to_bytes(8, "little") not in made.vvar.content


def test_refresh_writes_only_a_page_that_somebody_touched() -> None:
    clock = StoppedClock()
    made = subject.make_vdso(live_profile(), clock)
    if made.note:
        pytest.skip(made.note)
    memory = PhysicalMemory(16 << 20)
    made.refresh(memory)
    assert made.vvar.pages is None
    frame = PageCache(memory).bring(made.vvar, 0, 0)[0]
    clock.realtime = 2_000_000_000 * NS
    made.refresh(memory)
    assert (2_000_000_000).to_bytes(8, "little") in bytes(memory.page(frame))
    assert (1_234_567_890).to_bytes(8, "little") not in bytes(memory.page(frame))


def clock_source() -> str:
    return Path("/sys/devices/system/clocksource/clocksource0/current_clocksource").read_text().strip()


@pytest.mark.skipif(clock_source() != "tsc", reason=f"the host's clock is {clock_source()}, not the time-stamp counter")
def test_the_hosts_clocks_can_be_followed() -> None:
    made = subject.make_vdso(live_profile(), StoppedClock())
    if made.note:
        pytest.skip(made.note)
    made.vvar.follow_host()
    page = bytearray(4096)
    made.vvar.read_pages(0, memoryview(page))
    layout = subject.find_layout(bytes(page), time.time_ns(), time.monotonic_ns())
    assert layout is not None
    sequence, mode = struct.unpack_from("<Ii", page, layout.start)
    assert (sequence & 1, mode) == (0, 1)


CLOCKS = r"""
#include <stdio.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
static long ns(struct timespec t) { return t.tv_sec * 1000000000L + t.tv_nsec; }
static long call(int clock) { struct timespec t; syscall(SYS_clock_gettime, clock, &t); return ns(t); }
static long read_clock(int clock) { struct timespec t; clock_gettime(clock, &t); return ns(t); }
int main(void) {
    int clocks[] = {CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_MONOTONIC_RAW, CLOCK_BOOTTIME, CLOCK_TAI};
    for (int i = 0; i < 5; i++) {
        long last = 0, back = 0;
        for (int j = 0; j < 300; j++) {
            long now = j & 1 ? call(clocks[i]) : read_clock(clocks[i]);
            back += now < last;
            last = now;
        }
        printf("clock %d went back %ld times\n", clocks[i], back);
    }
    long start = read_clock(CLOCK_MONOTONIC);
    while (read_clock(CLOCK_MONOTONIC) < start + 100000000);
    printf("%d\n", call(CLOCK_MONOTONIC) - start < 1000000000);
}
"""


@pytest.mark.parametrize("engine", ["unicorn", "kvm"])
def test_the_vdso_and_the_system_call_tell_one_time(compiled: Compiler, engine: str) -> None:
    if engine == "kvm" and not os.access("/dev/kvm", os.W_OK):
        pytest.skip("no /dev/kvm to use")
    program = compiled(CLOCKS, "pie")
    expected = native(program).text
    assert "went back 0 times" in expected
    assert loadstone("run", "--engine", engine, "--", program).text == expected


AHEAD = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
int main(void) {
    const char *offsets = "monotonic 100000 0\nboottime 200000 0\n";
    int clocks[] = {CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_BOOTTIME};
    struct timespec before[3], read, called;
    for (int i = 0; i < 3; i++) clock_gettime(clocks[i], &before[i]);
    if (unshare(0x80 /* CLONE_NEWTIME */)) return 1;
    write(open("/proc/self/timens_offsets", O_WRONLY), offsets, strlen(offsets));
    if (!fork())
        for (int i = 0; i < 3; i++) {
            clock_gettime(clocks[i], &read);
            syscall(SYS_clock_gettime, clocks[i], &called);
            printf("%ld %ld\n", (read.tv_sec - before[i].tv_sec) / 1000, (called.tv_sec - read.tv_sec) / 10);
        }
    wait(0);
}
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes time namespaces")
@pytest.mark.parametrize("engine", ["unicorn", "kvm"])
def test_the_vdso_tells_the_time_of_the_time_namespace(compiled: Compiler, engine: str) -> None:
    if engine == "kvm" and not os.access("/dev/kvm", os.W_OK):
        pytest.skip("no /dev/kvm to use")
    got = loadstone("run", "--engine", engine, "--", compiled(AHEAD, "pie"))
    assert got.text == "0 0\n100 0\n200 0\n"


@pytest.mark.parametrize("layout", subject.LAYOUTS)
def test_every_known_layout_is_recognised(layout: subject.VvarLayout) -> None:
    page = bytearray(4096)
    now, up = 1_700_000_000 * NS + 5, 4000 * NS + 7
    for start in (layout.start, layout.start + layout.clock_size):
        struct.pack_into("<Iiq", page, start, 88, 1, 12345)
    base = layout.start + layout.basetime
    struct.pack_into("<QQQQ", page, base, now // NS, 99 << 24, up // NS, 99 << 24)
    struct.pack_into("<QQQQ", page, base + 80, now // NS, now % NS, up // NS, up % NS)
    assert subject.find_layout(bytes(page), now, up) == layout
    assert subject.find_layout(bytes(page), now + 5 * NS, up) is None
    assert subject.find_layout(bytes(4096), now, up) is None


def test_our_own_vdso_makes_the_system_calls(tmp_path: Path) -> None:
    path = tmp_path / "own.so"
    path.write_bytes(subject.own_vdso())
    library = ctypes.CDLL(str(path))
    wall, steady = int(time.time()) - 1, int(time.monotonic())  # time(2) reads a coarse clock
    assert wall <= library.__vdso_time(None) <= time.time()
    result = (ctypes.c_long * 2)()
    assert library.__vdso_clock_gettime(time.CLOCK_MONOTONIC, ctypes.byref(result)) == 0
    assert steady <= result[0] <= time.monotonic()
    assert library.__vdso_gettimeofday(ctypes.byref(result), None) == 0
    assert wall <= result[0] <= time.time()
    assert library.__vdso_clock_getres(time.CLOCK_MONOTONIC, ctypes.byref(result)) == 0
    cpu = ctypes.c_uint(99)
    assert library.__vdso_getcpu(ctypes.byref(cpu), None, None) == 0
    assert cpu.value < (os.cpu_count() or 1)
    dynamic = ELFFile(BytesIO(path.read_bytes()))
    assert dynamic["e_type"] == "ET_DYN" and dynamic.num_segments() == 3


def test_other_profiles_get_our_own() -> None:
    made = subject.make_vdso(KernelProfile())
    assert made.note
    assert made.code.content.startswith(subject.own_vdso())
    assert made.code.size == 0x2000


def test_the_code_is_the_hosts_but_for_the_cpu_number(call: Call) -> None:
    made = subject.make_vdso(live_profile(), StoppedClock())
    host = subject.host_vdso(made.code.size)
    differing = [at for at in range(len(host)) if host[at] != made.code.content[at]]
    assert len(differing) <= 12  # the function's beginning, and the copy that alternatives are patched from
    assert made.note or subject.asking_the_machine(made.code.content) == made.code.content != b""
    cpu, node = ctypes.c_uint(99), ctypes.c_uint(99)
    assert call("__vdso_getcpu", ctypes.addressof(cpu), ctypes.addressof(node), None) == 0
    assert (cpu.value < (os.cpu_count() or 1), node.value) == (True, 0)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("f30fc7f8", "31c06690"),  # rdpid %rax -> xor %eax, %eax
        ("90f30fc7fb90", "9031db669090"),  # rdpid %rbx -> xor %ebx, %ebx
        ("f30fc7b0", "f30fc7b0"),  # vmxon: memory operand
        ("90b87b0000000f03c0", "90b87b00000031c090"),  # mov $0x7b, %eax; lsl %eax, %eax: not where a function begins
        ("b87b0000000f03c0", "b8350100000f05c3"),  # mov $309, %eax; syscall; ret
        ("b87b000000f30fc7f890", "b8350100000f05c3f890"),
        ("90" * 12 + "f30f1efab87b0000000f03c0", "90" * 12 + "f30f1efab87b00000031c090"),
        ("f30f1efab87b0000000f03c0", "f30f1efab8350100000f05c3"),
        ("b97b0000000f03d1", "b97b00000031d290"),  # lsl %ecx, %edx
        ("90909090", "90909090"),
    ],
)
def test_asking_for_the_cpu_number(code: str, expected: str) -> None:
    assert subject.asking_the_machine(bytes.fromhex(code)).hex() == expected

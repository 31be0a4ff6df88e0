"""The summary shows every number it was given, at 80 columns, and no control sequence of a program's making."""

from __future__ import annotations

import io
import re

from loadstone import events
from loadstone.observe.at_exit import resident_pages
from loadstone.observe.fault_profile import FaultProfile
from loadstone.observe.maps import Mapping
from loadstone.report.discarded import amount, discarded_line, short_amount
from loadstone.report.stats import Summary, print_summary

LIBC = "/usr/lib/x86_64-linux-gnu/libc.so.6"


def _summary() -> Summary:
    profile = FaultProfile()
    fault = events.Fault(1, 1, 0, 0x7FFFF7DD0000, 1, "read", "user", "file", False, 15, LIBC, 0, 9)
    for number in range(7):
        profile(fault._replace(address=fault.address + number * 4096))
    profile(fault._replace(cause="copy-on-write", around=0, access="write", address=1 << 20))
    profile(fault._replace(cause="stack", mapping="[stack]", around=0, mode="kernel", major=False))
    profile(fault._replace(cause="anonymous", mapping="", around=0, major=True))
    for number in range(20):
        profile(events.Syscall(1, 1, 0, number, f"call{number:02}", (), 0, None, False, ""))
    for errno in (None, "ENOENT", "ENOENT", "EACCES"):
        profile(events.Syscall(1, 1, 0, 257, "openat", (), 0, errno, False, ""))
    maps = [
        Mapping(0x400000, 0x402000, "r-xp", 0, "/bin/\x1b[31mred"),
        Mapping(0x7FFFF7DD0000, 0x7FFFF7DF6000, "r--p", 0, LIBC),
        Mapping(0x7FFFF7DF6000, 0x7FFFF7F4B000, "r-xp", 0x26000, LIBC),
        Mapping(0x7FFFF7F4B000, 0x7FFFF7F4D000, "rw-p", 0, ""),
    ]
    return Summary(
        program="/bin/\x1b[31mred",
        maps=maps,
        resident={0x400000: 2, 0x7FFFF7DD0000: 16, 0x7FFFF7DF6000: 100},
        profile=profile,
        frames={"page table": 6, "anonymous": 31, "page cache": 120, "zero": 0},
        peak_frames=163,
        table_frames=6,
        engine="unicorn",
        why="the only core here",
        status="exit status 0",
        seconds=0.0614,
        exits={"page faults": 1234, "system calls": 5678, "exceptions": 0},
        fill_ahead=512,
        filled=(17, 4321),
        unimplemented={"io_uring_setup": 2},
    )


def _text() -> str:
    out = io.StringIO()
    print_summary(_summary(), out)
    return out.getvalue()


def test_summary_fits_80_columns_without_control_sequences() -> None:
    text = _text()
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) <= 80


def test_summary_has_the_numbers() -> None:
    text = _text()
    rows = [re.split(r"\s{2,}|\s(?=\d)", row.strip()) for row in text.splitlines()]
    libc = next(row for row in rows if row[0] == "libc.so.6")
    assert libc[1:] == ["7", "1", "8", "0", "8", "105"]  # file, COW, all, major, pages, around
    total = [row for row in rows if row[0] == "total"]
    assert total[1][-5:] == ["10", "1", "1", "10", "105"]
    assert "peak 163 frames (652 KiB)" in text
    assert "31 anonymous" in text
    assert "page tables: 6 frames" in text
    assert re.search(r"openat\s+4\s+3\s+EACCES 1, ENOENT 2", text)
    assert re.search(r"6 more\s+6", text)
    assert "NOT IMPLEMENTED" in text
    assert "io_uring_setup (2)" in text
    assert "engine unicorn: the only core here" in text
    whole = " ".join(text.split())
    assert "the core left the program 6,912 times: 5,678 system calls, 1,234 page faults" in whole
    assert "up to 512 pages: 17 faults on new memory filled 4,321 pages beside their own" in whole
    assert "61 ms" in text


def test_resident_pages_are_counted_by_mapping() -> None:
    class Table:
        def entries(self, start: int, end: int) -> list[tuple[int, int, int]]:
            return [(start, 0, 1), (start + 4096, 0, 0x100), (start + 8192, 0, 0x200)]

    maps = [Mapping(0x1000, 0x9000, "rw-p", 0, ""), Mapping(0xFFFFFFFFFF600000, 0xFFFFFFFFFF601000, "--xp", 0, "x")]
    assert resident_pages(Table(), maps) == {0x1000: 2}


def test_amounts() -> None:
    assert [amount(n) for n in (0, 1, 1023, 1024, 4608, 65536, 3 << 30)] == [
        "0 bytes", "1 byte", "1023 bytes", "1.0 KiB", "4.5 KiB", "64 KiB", "3.0 GiB",
    ]  # fmt: skip


def test_short_amounts() -> None:
    assert [short_amount(n) for n in (0, 1, 4096, 4608, 65536, 3 << 30)] == ["0", "1", "4K", "4.5K", "64K", "3G"]


def test_discarded_names_the_option() -> None:
    class Entry:
        def __init__(self, path: str, size: int) -> None:
            self.path, self.bytes = path, size

    one = discarded_line([Entry("/home/me/out\n", 2048)], "--rw /home/me")
    assert one == "discarded /home/me/out\\n (2.0 KiB); keep with --rw /home/me"
    assert discarded_line([Entry("/a", 1), Entry("/b", 2)], "").startswith("discarded 2 files and directories, /a")

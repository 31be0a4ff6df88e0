"""The live profile against what the host says in other ways."""

from __future__ import annotations

import os
import platform
import resource
import subprocess

import pytest

from loadstone.linux.exec import auxv
from loadstone.linux.profile import RLIM_INFINITY, KernelProfile, live_profile, own_auxv
from loadstone.verify.native import native_image
from support.speed import cost


def test_uname_and_sizes() -> None:
    profile = live_profile()
    assert (profile.release, profile.machine) == (platform.release(), platform.machine())
    assert profile.memory_size == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGESIZE")
    assert profile.cpu_count == len(os.sched_getaffinity(0))
    assert profile.clock_ticks == os.sysconf("SC_CLK_TCK")
    assert (
        profile.minimum_signal_stack == os.sysconf("SC_MINSIGSTKSZ") if "SC_MINSIGSTKSZ" in os.sysconf_names else True
    )


def test_limits() -> None:
    limits = live_profile().limits
    for number in range(16):
        soft, hard = resource.getrlimit(number)
        assert limits[number] == (soft % (RLIM_INFINITY + 1), hard % (RLIM_INFINITY + 1))


def test_auxiliary_vector_as_another_process_has_it() -> None:
    profile, vector = live_profile(), native_image("/bin/true", [b"true"], []).auxiliary_vector
    assert profile.auxv == tuple(key for key, _ in vector)
    values = dict(vector)
    assert (profile.hwcap, profile.hwcap2) == (values[auxv.AT_HWCAP], values.get(auxv.AT_HWCAP2, 0))
    assert dict(own_auxv())[auxv.AT_PAGESZ] == 4096


def test_special_mappings_as_another_process_has_them() -> None:
    maps = subprocess.run(["cat", "/proc/self/maps"], capture_output=True, check=True).stdout.decode()
    special = []
    for line in maps.splitlines():
        if "[v" in line and "vsyscall" not in line:
            start, end = (int(part, 16) for part in line.split()[0].split("-"))
            special.append((line.split()[-1], end - start))
    assert live_profile().special == tuple(special)
    assert (live_profile().vsyscall == "") == ("[vsyscall]" not in maps)


def test_system_settings() -> None:
    profile = live_profile()
    for name, value in (
        ("mmap_min_addr", profile.mmap_min_addr),
        ("max_map_count", profile.max_map_count),
        ("overcommit_memory", profile.overcommit),
    ):
        with open(f"/proc/sys/vm/{name}") as file:
            assert int(file.read()) == value
    with open("/sys/kernel/mm/transparent_hugepage/enabled") as file:
        assert f"[{profile.huge_pages}]" in file.read()


def test_defaults_are_this_kernels_when_it_is_6_18() -> None:
    profile, default = live_profile(), KernelProfile()
    if not profile.release.startswith("6.18"):
        pytest.skip("the defaults describe Linux 6.18")
    for field in ("auxv", "buffer_size", "brk_gap", "loader_brk", "rseq_feature_size", "vdso_above_stack", "special"):
        assert getattr(profile, field) == getattr(default, field)


def test_measuring_is_cheap() -> None:
    live_profile()
    assert cost(live_profile) < 10


def test_auxv_bytes() -> None:
    data = auxv.encode([(3, 0x40), (33, 1 << 40)])
    assert data.hex() == "0300000000000000" + "4000000000000000" + "2100000000000000" + "0000000000010000"
    assert auxv.decode(data + bytes(16) + b"junk") == [(3, 0x40), (33, 1 << 40)]
    assert auxv.encode([(6, 4096)], 4) == b"\6\0\0\0\0\x10\0\0"
    assert (auxv.name(33), auxv.name(4242)) == ("AT_SYSINFO_EHDR", "AT_4242")

"""The formats of /proc compared with the host's own files: same fields, same order, same widths."""

from __future__ import annotations

import os
import re
import resource

import pytest

from loadstone.linux.proc import machine_text
from loadstone.linux.proc import text as proc_text

FACTS = proc_text.ProcessFacts(
    pid=42,
    tgid=42,
    parent=1,
    group=42,
    session=42,
    name="cat",
    state="R",
    uids=(0, 0, 0, 0),
    gids=(0, 0, 0, 0),
    groups=(),
    umask=0o022,
    fd_slots=256,
    threads=1,
    memory=proc_text.MemoryFacts(total=2928 << 10, anonymous=116 << 10, file=1572 << 10),
)

# Since Linux 6.18 or as the host was configured: a host without them is older or built without, not different.
VARYING = {
    "Kthread", "untag_mask", "Speculation_Store_Bypass", "SpeculationIndirectBranch", "CoreDumping", "THP_enabled",
    "HugetlbPages", "Seccomp", "Seccomp_filters", "Zswap", "Zswapped", "SecPageTables", "Balloon", "DirectMap1G",
    "CmaTotal", "CmaFree", "Unaccepted", "HardwareCorrupted", "x86_Thread_features", "x86_Thread_features_locked",
    "Mems_allowed", "Mems_allowed_list", "Hugetlb", "GPUActive", "GPUReclaim", "KSM", "THPeligible", "ProtectionKey",
    "Pss_Dirty",
}  # fmt: skip


def host(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def shape(text: bytes) -> list[str]:
    """Each line with its numbers replaced by their kind: what must be equal between two files of one format."""
    lines = []
    for line in text.decode().splitlines():
        name = line.split(":")[0]
        if name not in VARYING:
            lines.append(re.sub(r" *\d+", "#", re.sub(r"[0-9a-f]{16}", "H", line)))
    return lines


def test_status_has_the_hosts_fields_in_the_hosts_order() -> None:
    ours = [line.split("\t")[0] for line in shape(proc_text.status(FACTS))]
    theirs = [line.split("\t")[0] for line in shape(host("/proc/self/status"))]
    assert ours == theirs


def test_status_sizes_are_written_as_the_host_writes_them() -> None:
    pattern = re.compile(rb"^VmRSS:\t *\d+ kB$", re.M)
    ours, theirs = (pattern.search(text) for text in (proc_text.status(FACTS), host("/proc/self/status")))
    assert ours and theirs
    assert len(ours[0]) == len(theirs[0])


def test_status_names_are_escaped() -> None:
    assert proc_text.status(FACTS._replace(name="a\nb\\c")).startswith(b"Name:\ta\\012b\\134c\n")


def test_stat_has_52_fields_and_the_host_agrees() -> None:
    ours = proc_text.stat(FACTS).decode()
    theirs = host("/proc/self/stat").decode()
    assert len(ours.rsplit(")", 1)[1].split()) == len(theirs.rsplit(")", 1)[1].split()) == 50
    assert ours.startswith("42 (cat) R 1 42 42 0 -1 4194304 ")
    assert ours.endswith("\n") and "  " not in ours


def test_statm_is_seven_numbers() -> None:
    assert proc_text.statm(FACTS.memory) == b"732 422 393 0 0 0 0\n"
    assert len(host("/proc/self/statm").split()) == 7


def test_limits_are_byte_for_byte_the_hosts() -> None:
    values = {}
    for number in range(16):
        values[number] = resource.getrlimit(number)
    assert proc_text.limits(values) == host("/proc/self/limits")


def test_vmstat_has_some_of_the_hosts_lines_in_its_order() -> None:
    names = [line.split()[0] for line in host("/proc/vmstat").splitlines()]
    ours = [line.split() for line in machine_text.vmstat(4, 3, 2, 1).splitlines()]
    assert [name for name in names if name in [name for name, _ in ours]] == [name for name, _ in ours]
    assert ours[0] == [b"nr_free_pages", b"4"]


def test_meminfo_has_the_hosts_fields_and_widths() -> None:
    ours = shape(machine_text.meminfo(1 << 30, 1 << 29, 0, 0, 0, 0))
    assert ours == shape(host("/proc/meminfo"))
    host_line = host("/proc/meminfo").splitlines()[0]
    assert len(machine_text.meminfo(1 << 30, 0, 0, 0, 0, 0).splitlines()[0]) == len(host_line)


def test_cpuinfo_has_the_hosts_fields() -> None:
    cpu = machine_text.CpuModel("GenuineIntel", 6, 60, "Test", 1, 2100.0, 16384, "fpu sse")
    names = [line.split(b":")[0] for line in machine_text.cpuinfo(cpu, 2).splitlines()]
    theirs = [line.split(b":")[0] for line in host("/proc/cpuinfo").splitlines()]
    if b"cpu family\t" not in theirs:
        pytest.skip("the host is not an x86 machine")
    one = theirs[: theirs.index(b"") + 1]
    optional = {b"microcode\t", b"TLB size\t", b"vmx flags\t", b"bugs\t\t"}
    assert [n for n in names if n not in optional] == [n for n in one if n not in optional] * 2


def test_uptime_loadavg_version_shapes() -> None:
    assert machine_text.uptime(1_001_989_999_999, 5_000_000) == b"1001.98 0.00\n"
    assert re.fullmatch(rb"\d+\.\d\d \d+\.\d\d\n", host("/proc/uptime"))
    pattern = rb"(\d+\.\d\d ){3}\d+/\d+ \d+\n"
    assert re.fullmatch(pattern, machine_text.loadavg(1, 2, 3)) and re.fullmatch(pattern, host("/proc/loadavg"))


def test_machine_stat_lines_are_the_hosts() -> None:
    ours = machine_text.machine_stat(os.cpu_count() or 1, 0, 0, 10**10, 1_700_000_000, 7, 1).decode().splitlines()
    theirs = host("/proc/stat").decode().splitlines()
    if len([t for t in theirs if t.startswith("cpu")]) != (os.cpu_count() or 1) + 1:
        pytest.skip("not every CPU of the host is shown")
    assert [line.split()[0] for line in ours] == [line.split()[0] for line in theirs]
    assert [len(line.split()) for line in ours if line[:3] == "cpu"] == [11] * ((os.cpu_count() or 1) + 1)
    assert ours[0].startswith("cpu  ") and theirs[0].startswith("cpu  ")


def test_fdinfo_is_the_hosts() -> None:
    fd = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    try:
        theirs = host(f"/proc/self/fdinfo/{fd}")
        match = re.search(rb"flags:\t0(\d+)\nmnt_id:\t(\d+)\n", theirs)
        assert match
        inode = os.fstat(fd).st_ino
        assert proc_text.fdinfo(0, int(match[1], 8), int(match[2]), inode) == theirs
    finally:
        os.close(fd)


def test_mounts_and_mountinfo_rebuild_the_hosts() -> None:
    mounts = []
    for line in host("/proc/self/mountinfo").decode().splitlines():
        left, right = line.split(" - ")
        number, parent, device, root, point, options, *tags = left.split(" ")
        kind, source, more = right.split(" ")
        major, minor = map(int, device.split(":"))
        shown = "".join(f"{tag} " for tag in tags)
        where = int(number), int(parent), major, minor, root, point
        mounts.append(machine_text.Mount(*where, options, shown, kind, source, more))
    if any("\\" in m.point + m.source + m.root for m in mounts):
        pytest.skip("a mount of the host has an escaped name")
    assert machine_text.mountinfo(mounts) == host("/proc/self/mountinfo")
    ours, theirs = (
        machine_text.mounts(mounts).decode().splitlines(),
        host("/proc/self/mounts").decode().splitlines(),
    )
    assert [line.split()[:3] for line in ours] == [line.split()[:3] for line in theirs]
    assert [sorted(line.split()[3].split(",")) for line in ours] == [
        sorted(line.split()[3].split(",")) for line in theirs
    ]


def test_smaps_of_one_area_has_the_hosts_lines() -> None:
    theirs = host("/proc/self/smaps").splitlines(keepends=True)
    first = theirs[: next(i for i, line in enumerate(theirs) if line.startswith(b"VmFlags")) + 1]
    area = proc_text.AreaFacts(first[0].decode().rstrip("\n"), 8192, 0, 0, 8192, 0, 0, 8192, 0, "rd mr mw me")
    ours = proc_text.smaps([area])
    assert [line.split(b":")[0] for line in ours.splitlines() if line.split(b":")[0].decode() not in VARYING] == [
        line.rstrip(b"\n").split(b":")[0] for line in first if line.split(b":")[0].decode() not in VARYING
    ]
    assert {len(line) for line in ours.splitlines() if line.endswith(b" kB")} == {
        len(line.rstrip(b"\n")) for line in first if line.endswith(b" kB\n")
    }


def test_cpu_masks() -> None:
    assert proc_text.cpu_mask(1) == "1"
    assert proc_text.cpu_mask(2) == "3"
    assert proc_text.cpu_mask(33) == "1,ffffffff"
    assert proc_text.cpu_list(4) == "0-3"

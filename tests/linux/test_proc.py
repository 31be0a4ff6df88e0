"""The guest's /proc, seen by programs that run in it, against the host's: the same fields, its own processes only."""

from __future__ import annotations

import os
import re
import struct
from functools import cache
from pathlib import Path

import pytest

from support.compilers import Compiler
from support.run import Completed, loadstone, native, same

# Written by other kernel configurations, or only where the host has it.
OPTIONAL = {"x86_Thread_features", "x86_Thread_features_locked", "Kthread", "untag_mask", "DirectMap1G", "vmx flags"}


@cache
def guest(*line: str) -> Completed:
    done = loadstone("run", "--", *line)
    assert done.status == 0, done.errors
    return done


@cache
def host(*line: str) -> Completed:
    return native(*line)


def names(text: str) -> list[str]:
    return [name for line in text.splitlines() if (name := re.split(r"[:\t]", line)[0].strip()) not in OPTIONAL]


@pytest.mark.parametrize("path", ["/proc/self/status", "/proc/meminfo", "/proc/self/limits", "/proc/self/io"])
def test_fields_are_the_hosts_in_its_order(path: str) -> None:
    ours, theirs = names(guest("/bin/cat", path).text), names(host("/bin/cat", path).text)
    if path == "/proc/meminfo":
        varying = {"CmaTotal", "CmaFree", "Unaccepted", "HardwareCorrupted", "Balloon", "GPUActive", "GPUReclaim"}
        ours, theirs = ([name for name in one if name not in varying] for one in (ours, theirs))
    assert ours == theirs


def test_maps_have_the_hosts_form() -> None:
    form = re.compile(
        r"[0-9a-f]{8,16}-[0-9a-f]{8,16} [r-][w-][x-][ps] [0-9a-f]{8} [0-9a-f]{2,}:[0-9a-f]{2,} \d+( +\S.*| )?"
    )
    for text in (guest("/bin/cat", "/proc/self/maps").text, host("/bin/cat", "/proc/self/maps").text):
        assert all(form.fullmatch(line) for line in text.splitlines()), text
    files = [
        line.split()[5] for line in guest("/bin/cat", "/proc/self/maps").text.splitlines() if len(line.split()) > 5
    ]
    theirs = [
        line.split()[5] for line in host("/bin/cat", "/proc/self/maps").text.splitlines() if len(line.split()) > 5
    ]
    ordinary = {"[heap]", "[stack]"}
    assert {name for name in files if name[0] == "/" or name in ordinary} == {
        name for name in theirs if name[0] == "/" or name in ordinary
    }


def test_smaps_has_the_hosts_lines() -> None:
    def one(text: str) -> list[str]:
        lines = text.splitlines()
        end = next(at for at, line in enumerate(lines) if line.startswith("VmFlags"))
        return [line.split(":")[0] for line in lines[1 : end + 1]]

    optional = {"KSM", "Pss_Dirty", "ProtectionKey", "THPeligible", "FilePmdMapped"}
    ours, theirs = (one(side("/bin/cat", "/proc/self/smaps").text) for side in (guest, host))
    assert [n for n in ours if n not in optional] == [n for n in theirs if n not in optional]


def test_rss_in_status_statm_and_stat_agree() -> None:
    text = guest("/bin/cat", "/proc/self/status", "/proc/self/statm", "/proc/self/stat").text
    resident = int(re.search(r"VmRSS:\s+(\d+) kB", text)[1])  # type: ignore[index]
    statm, stat = text.splitlines()[-2:]
    assert abs(int(statm.split()[1]) * 4 - resident) <= 64
    assert abs(int(stat.rsplit(")", 1)[1].split()[21]) * 4 - resident) <= 64
    parts = [int(re.search(rf"{name}:\s+(\d+) kB", text)[1]) for name in ("RssAnon", "RssFile", "RssShmem")]  # type: ignore[index]
    assert sum(parts) == resident


def test_command_line_environment_and_links() -> None:
    line = (
        "/usr/bin/env",
        "-i",
        "ONE=1",
        "TWO=2",
        "/bin/cat",
        "/proc/self/cmdline",
        "/proc/self/environ",
        "/proc/self/comm",
    )
    assert guest(*line).stdout == host(*line).stdout
    for name in ("exe", "cwd", "root"):
        line = ("/usr/bin/readlink", f"/proc/self/{name}")
        assert guest(*line).stdout == host(*line).stdout


def test_auxv_is_what_the_program_was_given() -> None:
    shown = guest("/bin/cat", "/proc/self/auxv").stdout
    pairs = list(struct.iter_unpack("<QQ", shown))
    theirs = list(struct.iter_unpack("<QQ", host("/bin/cat", "/proc/self/auxv").stdout))
    assert [key for key, _ in pairs] == [key for key, _ in theirs]
    assert pairs[-1] == (0, 0)


def test_auxv_and_stat_have_the_kernels_values() -> None:
    """At the same addresses: every auxiliary vector entry but the CPU's, every address of the image in stat."""
    cpu = {16, 26, 51}  # AT_HWCAP, AT_HWCAP2, AT_MINSIGSTKSZ describe the core that runs
    ours, theirs = (
        {key: value for key, value in struct.iter_unpack("<QQ", done.stdout) if key not in cpu}
        for done in (guest("/bin/cat", "/proc/self/auxv"), native("/bin/cat", "/proc/self/auxv", fixed_addresses=True))
    )
    assert ours == theirs
    # vsize, startcode, endcode, startstack; start_data ... env_end (proc_pid_stat(5) numbers them from 1)
    numbers = [23, 26, 27, 28, *range(45, 52)]
    ours_stat, their_stat = (
        done.text.rpartition(")")[2].split()
        for done in (guest("/bin/cat", "/proc/self/stat"), native("/bin/cat", "/proc/self/stat", fixed_addresses=True))
    )
    assert [ours_stat[n - 3] for n in numbers] == [their_stat[n - 3] for n in numbers]
    assert ours_stat[0] == "R"
    assert (
        (ours_stat[17], ours_stat[32]) == (their_stat[17], their_stat[32]) == ("1", "0")
    )  # one thread; blocked signals


def test_status_has_the_kernels_values() -> None:
    def values(text: str) -> dict[str, str]:
        return {name: " ".join(value.split()) for name, _, value in (line.partition(":") for line in text.splitlines())}

    line = ("/bin/cat", "/proc/self/status")
    ours, theirs = values(guest(*line).text), values(native(*line, fixed_addresses=True).text)
    same = ("Name Umask State Uid Gid Groups VmSize VmData VmStk VmExe VmLib VmPTE Threads SigPnd ShdPnd SigBlk "
            "SigIgn SigCgt CapInh")  # fmt: skip
    different = {name: (ours[name], theirs[name]) for name in same.split() if ours[name] != theirs[name]}
    assert not different
    assert ours["Pid"] == ours["Tgid"] == ours["NSpid"]


def test_descriptors() -> None:
    listing = guest("/bin/ls", "-l", "/proc/self/fd").text
    assert re.search(r"^l[r-][w-]x------ .* 0 -> /dev/null$", listing, re.M)
    assert re.search(r"^l-wx------ .* 1 -> pipe:\[\d+\]$", listing, re.M)
    info = guest("/bin/cat", "/proc/self/fdinfo/0").text
    assert names(info) == names(host("/bin/cat", "/proc/self/fdinfo/0").text)


def test_reading_through_a_descriptors_link() -> None:
    for path in ("/dev/stdin", "/proc/self/fd/0", "/proc/thread-self/fd/0"):
        done = loadstone("run", "--", "/bin/cat", path, stdin=b"through the link\n")
        assert done.stdout == b"through the link\n", done.errors


def test_only_the_guests_processes_are_there() -> None:
    entries = guest("/bin/ls", "/proc").text.split()
    assert [name for name in entries if name.isdecimal()] == ["1", "1000"]
    assert guest("/bin/cat", "/proc/1/stat").text.startswith("1 (init) S 0 0 0 0 -1 ")
    assert {"self", "thread-self", "meminfo", "sys", "mounts"} <= set(entries)
    missing = loadstone("run", "--", "/bin/ls", f"/proc/{os.getpid()}")
    assert missing.status != 0 and "No such file" in missing.errors


def test_the_host_is_not_reached_through_root_or_cwd() -> None:
    for root in ("/proc/self/root", "/proc/self/root/proc/self/cwd/../../../.."):
        path = f"{root}/proc/{os.getpid()}/comm"
        assert loadstone("run", "--", "/bin/cat", path).status != 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may change settings of the kernel")
def test_root_changes_settings_of_the_machine_and_not_of_the_host() -> None:
    names = ("vm/max_map_count", "vm/overcommit_memory", "kernel/core_pattern", "kernel/tainted")
    before = [Path("/proc/sys", name).read_bytes() for name in names]
    script = """cd /proc/sys
        echo 4711 > vm/max_map_count; echo 1 > vm/overcommit_memory; echo 'x-%p' > kernel/core_pattern
        cat vm/max_map_count vm/overcommit_memory kernel/core_pattern
        echo 3 > vm/overcommit_memory || echo refused; echo word > vm/max_map_count || echo refused
        echo 7000 > kernel/ns_last_pid; (exec /bin/sh -c 'echo $PPID; sleep 0 & echo $!') | tail -1"""
    done = loadstone("run", "--", "/bin/sh", "-c", script)
    assert done.text.split() == ["4711", "1", "x-%p", "refused", "refused", "7003"], done.errors
    assert [Path("/proc/sys", name).read_bytes() for name in names] == before


def test_settings_of_the_kernel() -> None:
    for name in ("kernel/osrelease", "kernel/ostype", "kernel/hostname", "kernel/version", "kernel/pid_max",
                 "kernel/ngroups_max", "kernel/cap_last_cap", "vm/overcommit_memory", "vm/max_map_count",
                 "vm/mmap_min_addr", "fs/nr_open", "fs/pipe-max-size"):  # fmt: skip
        path = f"/proc/sys/{name}"
        if name == "kernel/pid_max":  # a limit of the host's, not of the guest's
            assert guest("/bin/cat", path).text == f"{max(32768, 1024 * len(os.sched_getaffinity(0)))}\n"
        else:
            assert guest("/bin/cat", path).stdout == host("/bin/cat", path).stdout, name
    identity = guest("/bin/cat", "/proc/sys/kernel/random/boot_id").text
    assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}\n", identity)


def test_numbers_of_processes_stay_below_pid_max() -> None:
    script = """cd /proc/sys/kernel
        echo 300 > pid_max || echo refused; echo 4194305 > pid_max || echo refused; echo 304 > pid_max; cat pid_max
        for i in 1 2 3 4 5 6; do (exec /bin/sh -c 'echo $$'); done
        for i in 1 2 3 4 5 6; do /bin/sleep 100 & done"""
    done = loadstone("run", "--", "/bin/dash", "-c", script)
    said = done.text.split()
    assert said[:3] == ["refused", "refused", "304"], done.errors
    numbers = [int(word) for word in said[3:]]
    assert len(numbers) == 6 and set(numbers) == {300, 301, 302, 303}  # again and again
    assert "Cannot fork" in done.errors


def test_cpus_and_memory_are_the_machines() -> None:
    done = loadstone("run", "--memory", "256M", "--", "/bin/cat", "/proc/meminfo", "/sys/devices/system/cpu/online")
    assert done.text.startswith("MemTotal:         262144 kB\n")
    count = guest("/bin/cat", "/proc/cpuinfo").text.count("processor\t:")
    online = guest("/bin/cat", "/sys/devices/system/cpu/online").text.strip()
    assert online == ("0" if count == 1 else f"0-{count - 1}")


def test_mounts() -> None:
    mounts = guest("/bin/cat", "/proc/mounts").text.splitlines()
    assert mounts[0].split()[1:3] == ["/", "overlay"]
    assert {line.split()[1] for line in mounts} >= {"/", "/proc", "/sys", "/dev"}
    info = guest("/bin/cat", "/proc/self/mountinfo").text.splitlines()
    assert all(re.fullmatch(r"\d+ \d+ \d+:\d+ / \S+ rw(,noexec)?,relatime - \S+ \S+ rw", line) for line in info)
    assert not [line for line in mounts if "noexec" in line]  # of /proc and /sys it is no mount option


def test_writing_a_name_and_what_is_refused() -> None:
    script = "echo renamed > /proc/self/comm; read name < /proc/self/comm; echo $name; echo 1 > /proc/sys/vm/swappiness"
    done = loadstone("run", "--", "/bin/bash", "-c", script)
    assert done.stdout == b"renamed\n" and done.status == 1


SHARED_PAGES = r"""
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
int main(void) {
  static char text[8192];
  volatile char *area = mmap(0, 1 << 16, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  for (int i = 0; i < 1 << 16; i += 4096) area[i] = 1;
  int fd = open("/proc/self/status", O_RDONLY);
  read(fd, text, sizeof text - 1);
  char *line = strstr(text, "RssShmem");
  printf("%.*s\n", (int)strcspn(line, "\n"), line);
}
"""


def test_shared_memory_is_counted_as_such(compiled: Compiler) -> None:
    assert same(compiled(SHARED_PAGES, "static")).text.split() == ["RssShmem:", "64", "kB"]


def test_the_block_size_is_that_of_the_file_system() -> None:
    """st_blksize is what stdio allocates: 1024 bytes in /proc, a page in /sys."""
    files = ("/proc/filesystems", "/proc/self/maps", "/proc/self", "/sys/devices/system/cpu/online")
    same("/usr/bin/stat", "-c", "%n %o %s", *files)


READ_RECORDS = r"""
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>
int main(void) {
    int sizes[][6] = {{8192, 8192, 8192, 8192, 9, 9}, {100, 8192, 1, 8192, 8192, 9}, {1000, 3000, 5000, 9000, 9000, 9}};
    static char buffer[10000];
    for (int i = 0; i < 200; i++) mmap(0, 8192, i & 1 ? PROT_READ : PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (int i = 0; i < 3; i++) {
        int fd = open("/proc/self/maps", O_RDONLY);
        for (int j = 0; j < 6; j++) printf("%zd ", read(fd, buffer, sizes[i][j]));
        puts("");
        close(fd);
    }
}
"""


def test_a_read_gives_as_many_whole_records_as_the_kernels_buffer_holds(compiled: Compiler) -> None:
    first = same(compiled(READ_RECORDS, "static"), fixed_addresses=True).text.split()[0]
    assert 4000 < int(first) < 4096


@pytest.mark.skipif(os.path.exists("/sys/devices/system/node/node1"), reason="the host has more than one node")
def test_the_cpus_of_a_node() -> None:
    same("/bin/cat", "/sys/devices/system/node/node0/cpumap")


def test_lscpu_finds_every_cpu() -> None:
    lines = loadstone("run", "/usr/bin/lscpu", "--parse=CPU,SOCKET").text.splitlines()
    assert [line for line in lines if not line.startswith("#")] == [f"{n},0" for n in range(os.cpu_count() or 1)]


HELD_OPEN = r"""
int main(void) {
    static const char *names[] = {"auxv", "cmdline", "comm", "environ", "limits", "maps", "mounts", "oom_score_adj",
                                  "personality", "smaps", "stat", "statm", "status", "task/%d/stat",
                                  "task/%d/children"};
    enum { COUNT = sizeof names / sizeof *names };
    int go[2], files[COUNT], child;
    pipe(go);
    if (!(child = fork())) {
        close(go[1]);
        read(go[0], go, 1);
        _exit(0);
    }
    for (int i = 0; i < COUNT; i++) {
        char name[64], path[96];
        snprintf(name, sizeof name, names[i], child);
        snprintf(path, sizeof path, "/proc/%d/%s", child, name);
        files[i] = open(path, O_RDONLY);
    }
    close(go[1]);
    waitpid(child, 0, 0);
    for (int i = 0; i < COUNT; i++) {
        char data[64];
        int got = read(files[i], data, sizeof data);
        printf("%s %d %d\n", names[i], got, got < 0 ? errno : 0);
    }
}
"""


def test_files_of_a_process_that_is_gone(compiled: Compiler) -> None:
    includes = ("errno.h", "fcntl.h", "stdio.h", "sys/wait.h", "unistd.h")
    same(compiled("".join(f"#include <{name}>\n" for name in includes) + HELD_OPEN))


def test_scores_for_when_memory_is_short() -> None:
    script = "for adjust in 0 1 500 1000; do echo $adjust > /proc/$$/oom_score_adj; cat /proc/$$/oom_score; done"
    for done in (guest("sh", "-c", script), host("sh", "-c", script)):
        scores = [int(word) for word in done.text.split()]
        # and two thirds of the thousandths of the memory that a shell takes
        assert all(0 <= score - least < 6 for score, least in zip(scores, (666, 667, 1000, 1333), strict=True)), scores


def test_what_root_may_do_in_the_directories_of_settings() -> None:
    script = "for at in /proc /proc/sys /proc/sys/kernel; do for may in r w x; do test -$may $at; echo $?; done; done"
    same("sh", "-c", script)

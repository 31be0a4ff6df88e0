"""The options that make the machine what it is, through the command: each changes what it says and nothing else."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from loadstone.observe.maps import parse_maps
from support.compilers import Compiler
from support.run import ENVIRONMENT, loadstone

PAGE = 4096
AROUND = 65536


def faults(record: Path, *options: str) -> list[dict[str, Any]]:
    """The fault events of a deterministic `run OPTIONS… /bin/true`."""
    got = loadstone("run", "--deterministic", "--record", str(record), *options, "/bin/true")
    assert got.status == 0, got.errors
    lines = [json.loads(line) for line in record.read_text().splitlines()]
    return [line for line in lines[1:] if line["event"] == "fault"]


def test_fault_around(tmp_path: Path) -> None:
    """4K: a fault maps one page. 64K: up to 16, in a window aligned in the address space (mm/memory.c)."""
    single, around = faults(tmp_path / "a", "--fault-around", "4K"), faults(tmp_path / "b", "--fault-around", "64K")
    assert faults(tmp_path / "c") == around  # Linux's default
    assert {fault["around"] for fault in single} == {0}
    assert 0 < max(fault["around"] for fault in around) <= 15
    assert len(single) > len(around) + 50
    read = [fault for fault in around if fault["cause"] == "file" and fault["access"] != "write"]
    windows = [(fault["address"] // AROUND, fault["mapping"], fault["offset"] - fault["address"]) for fault in read]
    assert len(windows) == len(set(windows))  # a window of one VMA faults once
    # Both machines touch the same pages: every page that faulted with 64K faulted with 4K too.
    assert {fault["address"] & -PAGE for fault in around} <= {fault["address"] & -PAGE for fault in single}


def test_page_cache(tmp_path: Path) -> None:
    """warm: no fault reads a file. cold: the first of each stretch of a file is major, and reads ahead."""
    warm, cold = faults(tmp_path / "a"), faults(tmp_path / "b", "--page-cache", "cold")
    assert not any(fault["major"] for fault in warm)
    major = [fault for fault in cold if fault["major"]]
    files = {fault["mapping"] for fault in cold if fault["cause"] == "file"}
    assert {fault["mapping"] for fault in major} >= files - {"[vdso]", "[vvar]"}
    assert len(major) < len([fault for fault in cold if fault["cause"] in ("file", "copy-on-write")])
    assert cold == faults(tmp_path / "c", "--page-cache", "cold")
    told = loadstone("run", "--stats", "--page-cache", "cold", "/bin/true").errors
    assert "cold page cache" in " ".join(told.split())


@pytest.mark.parametrize("variant", ["pie", "static-pie", "no-pie"])
def test_aslr(variant: str, compiled: Compiler) -> None:
    """One seed, one layout, whichever command asks; another seed, another one, within the kernel's ranges."""
    program = compiled("hello", variant)

    def layout(*options: str) -> list[tuple[Any, ...]]:
        return [tuple(mapping) for mapping in parse_maps(loadstone("maps", *options, program).text)]

    seeds = {seed: layout("--aslr", str(seed)) for seed in (1, 2, 3)}
    plain = layout()
    assert layout("--aslr", "1") == seeds[1]
    assert len({str(maps) for maps in [*seeds.values(), plain]}) == 4
    explained = json.loads(loadstone("explain", "--json", "--aslr", "1", program).stdout)
    assert [tuple(mapping.values()) for mapping in explained["maps"]] == seeds[1]
    for maps in seeds.values():
        assert _sizes(maps) == _sizes(plain)
        first = next(mapping for mapping in maps if mapping[4] == program)
        stack = next(mapping for mapping in maps if mapping[4] == "[stack]")
        if variant == "no-pie":
            assert first[0] == 0x400000
        elif variant == "pie":
            assert 0x555555554000 <= first[0] < 0x555555554000 + (1 << 40)  # 28 bits of pages
        else:
            assert 0x7E0000000000 < first[0] < 0x7FFFF8000000  # placed by mmap
        assert 0x7FFFFFFFF000 - (1 << 34) - 2 * PAGE <= stack[1] <= 0x7FFFFFFFF000  # 22 bits of pages


def _sizes(maps: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Everything but the addresses, the mappings in the order of their names and offsets."""
    return sorted((path, offset, perms, end - start) for start, end, perms, offset, path in maps)


def test_memory_is_what_the_guest_sees_and_all_there_is() -> None:
    got = loadstone("run", "--memory", "48M", "/bin/cat", "/proc/meminfo")
    assert got.text.startswith(f"MemTotal: {48 << 10:>14} kB\n")
    got = loadstone("run", "--memory", "1M", "/bin/ls", "/usr/bin")
    assert (got.status, got.stdout) == (137, b"")
    assert re.search(r"^loadstone: out of memory: all 256 frames \(1 MiB\) are in use; ls \(pid \d+\)", got.errors)
    assert len(got.errors.splitlines()) == 1


def test_environment_options_in_order() -> None:
    """A later --env wins; what was there keeps its place; --clear-env goes first wherever it stands."""
    got = loadstone("run", "--env", "A=1", "--env", "HOME=/h", "--env", "A=2", "/usr/bin/env")
    wanted = [f"{name}={'/h' if name == 'HOME' else value}" for name, value in ENVIRONMENT.items()]
    assert got.text.splitlines() == [*wanted, "A=2"]
    got = loadstone("run", "--env", "A=", "--clear-env", "--env", "B=x=y", "/usr/bin/env")
    assert got.text.splitlines() == ["A=", "B=x=y"]


def test_bind_and_root_together(tmp_path: Path, compiled: Compiler) -> None:
    """A root of its own, with two directories of the host's shown in it, one of them inside the other."""
    root, shown, inner = tmp_path / "root", tmp_path / "shown", tmp_path / "inner"
    for directory in (root / "data" / "inner", shown, inner, shown / "inner"):
        directory.mkdir(parents=True, exist_ok=True)
    (shown / "a").write_text("a")
    (inner / "b").write_text("b")
    program = compiled(LIST, "static")
    (root / "list").write_bytes(Path(program).read_bytes())
    (root / "list").chmod(0o755)
    binds = ["--bind", f"{shown}:/data", "--bind", f"{inner}:/data/inner"]
    got = loadstone("run", "--root", str(root), *binds, "--cwd", "/data", "/list", ".", "inner", "/", cwd=tmp_path)
    assert (got.status, got.text) == (0, ".: a inner\ninner: b\n/: data dev list proc sys\n"), got.errors


LIST = r"""
#include <dirent.h>
#include <stdio.h>
static int visible(const struct dirent *e) { return e->d_name[0] != '.'; }
int main(int argc, char **argv) {
    for (int i = 1; i < argc; i++) {
        struct dirent **names;
        int n = scandir(argv[i], &names, visible, alphasort);
        printf("%s:", argv[i]);
        for (int k = 0; k < n; k++) printf(" %s", names[k]->d_name);
        puts("");
    }
    return 0;
}
"""


@pytest.mark.parametrize("command", ["run", "explain", "maps"])
def test_a_root_that_is_none(command: str, tmp_path: Path) -> None:
    got = loadstone(command, "--root", str(tmp_path / "absent"), "true")
    assert got.status == 125
    assert f"--root: {tmp_path}/absent is not a directory" in got.errors


def test_a_program_that_may_not_be_read(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root reads every file")
    program = tmp_path / "program"
    program.write_bytes(Path("/bin/true").read_bytes())
    program.chmod(0o111)
    got = loadstone("run", str(program))
    assert got.status == 126
    assert "may be executed here, but not read" in got.errors

"""The order of events: an exec's stages stand among what they map and touch, and a process's exit is its last word."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from loadstone import Machine
from loadstone.errors import LinuxError
from loadstone.events import Exec, Exit, Fault, Map
from loadstone.observe.maps import parse_maps
from support.compilers import Compiler

PAGE = 4096


def events_of(program: str, *args: str, until: str = "") -> tuple[list[Any], str]:
    """What happened from execve to `until` (the end, if empty), and the maps there."""
    seen: list[Any] = []
    with Machine() as machine:
        machine.events.subscribe(seen.append)
        process = machine.spawn(program, [program, *args], {"LC_ALL": "C"})
        if until == "main":
            process.run_until("main")
        elif not until:
            process.run()
        return seen, process.maps


def test_stages_come_as_they_happen() -> None:
    """Nothing is mapped before begin_new_exec; the file's mappings lie between step 3's first and last words."""
    seen, _ = events_of("/bin/true", until="exec")
    stages = [(at, event) for at, event in enumerate(seen) if isinstance(event, Exec)]
    where = {}
    for at, event in stages:
        where.setdefault(event.function, at)
    functions = list(where)
    for earlier, later in (
        ("do_open_execat", "copy_strings"), ("copy_strings", "prepare_binprm"), ("prepare_binprm", "load_elf_phdrs"),
        ("load_elf_phdrs", "open_exec"), ("open_exec", "begin_new_exec"), ("begin_new_exec", "setup_arg_pages"),
        ("setup_arg_pages", "elf_load"), ("elf_load", "load_elf_interp"), ("load_elf_interp", "create_elf_tables"),
        ("create_elf_tables", "start_thread"),
    ):  # fmt: skip
        assert functions.index(earlier) < functions.index(later)
    for at, event in enumerate(seen):
        if isinstance(event, Map | Fault):
            assert where["setup_new_exec"] < at < where["start_thread"]
    program = [at for at, event in enumerate(seen) if isinstance(event, Map) and event.path.endswith("/true")]
    linker = [at for at, event in enumerate(seen) if isinstance(event, Map) and "ld-linux" in event.path]
    assert where["setup_arg_pages"] < program[0] < program[-1] < linker[0] < linker[-1] < where["load_elf_interp"]


def test_each_segment_is_told_right_after_its_mapping() -> None:
    seen, _ = events_of("/bin/true", until="exec")
    told = [at for at, event in enumerate(seen) if isinstance(event, Exec) and event.function == "elf_load"]
    for at in told:
        before = next(event for event in reversed(seen[:at]) if isinstance(event, Map) and event.event == "map")
        assert f"{before.start:#x}-" in seen[at].text


def test_a_failed_exec_told_what_it_got_to(tmp_path: Path) -> None:
    file = tmp_path / "text"
    file.write_text("hello\n")
    file.chmod(0o755)
    seen: list[Any] = []
    with Machine() as machine:
        machine.events.subscribe(seen.append)
        with pytest.raises(LinuxError):
            machine.spawn(str(file), [], {})
    assert [type(event) for event in seen] == [Exec] * len(seen)
    assert seen[-1].function == "search_binary_handler"


@pytest.mark.parametrize("keep", [False, True])
def test_exit_is_the_last_event(keep: bool) -> None:
    """The address space goes with the process: that is no `unmap`."""
    seen: list[Any] = []
    with Machine() as machine:
        machine.events.subscribe(seen.append)
        process = machine.spawn("/bin/bash", ["bash", "-c", "kill -TERM $$"], {})
        if keep:
            process.keep_memory()
        process.run()
    assert isinstance(seen[-1], Exit)
    assert seen[-1].signal == "SIGTERM"
    assert sum(isinstance(event, Exit) for event in seen) == 1


@pytest.mark.parametrize("until", ["exec", "main"])
@pytest.mark.parametrize("kind", ["bash", "static", "pie", "musl"])
def test_map_events_add_up_to_the_maps(kind: str, until: str, compiled: Compiler) -> None:
    """Every page and its permissions, from the events alone."""
    program = "/bin/bash" if kind == "bash" else compiled("hello", kind)
    seen, maps = events_of(program, until=until)
    pages: dict[int, str] = {}
    for event in seen:
        if isinstance(event, Map):
            for page in range(event.start, event.end, PAGE):
                if event.event == "unmap":
                    pages.pop(page, None)
                else:
                    pages[page] = event.perms
    wanted = {
        page: mapping.perms
        for mapping in parse_maps(maps)
        if mapping.path != "[vsyscall]"
        for page in range(mapping.start, mapping.end, PAGE)
    }
    assert pages == wanted

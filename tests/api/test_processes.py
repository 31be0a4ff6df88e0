"""The live tree of processes from Python, against what the processes themselves and the host's /proc say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from loadstone import Machine, Process

ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C"}


def bash(machine: Machine, script: str) -> Process:
    return machine.spawn("/bin/bash", ["bash", "-c", script], ENVIRONMENT)


def test_the_tree_while_it_lives(capfd: pytest.CaptureFixture[str]) -> None:
    """Looked at by a hook in the moment in which the innermost process ends."""
    seen: list[str] = []
    with Machine(deterministic=True, cpu_count=1) as machine:
        processes = machine.processes

        def ended(process: Process) -> None:
            if process.name != "true":
                return
            parent = process.parent
            assert parent is not None
            assert (parent.name, parent.state, parent.waits_for) == ("bash", "waiting", "a child")
            assert parent.children == [process] and processes[parent.pid] is parent
            assert parent.tasks[0].state == "waiting" and "rax" in parent.tasks[0].registers
            assert parent.arguments[:2] == ["bash", "-c"] and process.arguments == ["/bin/true", "a b", ""]
            assert process.parent_pid == parent.pid and process.executable == "/usr/bin/true"
            assert (
                "[stack]" in process.maps and process.memory.read(process.image.stack.argument_start, 9) == b"/bin/true"
            )
            assert process.status is not None and process.status.code == 0
            assert [one.pid for one in processes.roots] == [first.pid]
            seen.append(str(processes))

        processes.on_exit(ended)
        first = bash(machine, '(/bin/true "a b" ""; echo $BASHPID $$); exit 4')
        assert first.run().code == 4
        assert first.state == "gone" and first.pid not in processes and len(processes) == 0
        assert (first.arguments, first.resident_pages) == ([], 0)
    inner, outer = capfd.readouterr().out.split()
    assert re.fullmatch(
        rf" +{outer} bash: waiting for a child\n +{inner}   bash: waiting for a child\n +\d+     true: \w+", seen[0]
    )


def test_hooks_on_fork_exec_and_exit_in_their_order() -> None:
    told: list[tuple[object, ...]] = []
    with Machine(deterministic=True) as machine:
        processes = machine.processes
        processes.on_fork(lambda parent, child: told.append(("fork", parent.pid, child.pid, child.name, child.state)))
        processes.on_exec(lambda process: told.append(("exec", process.pid, process.name, process.arguments)))
        processes.on_exit(lambda process: told.append(("exit", process.pid, process.name)))
        process = bash(machine, "/bin/true; (exit 3); :")
        process.run()
    first = process.pid
    second, third = first + 1, first + 2
    assert told == [
        ("exec", first, "bash", ["bash", "-c", "/bin/true; (exit 3); :"]),
        ("fork", first, second, "bash", "ready"),
        ("exec", second, "true", ["/bin/true"]),
        ("exit", second, "true"),
        ("fork", first, third, "bash", "ready"),
        ("exit", third, "bash"),
        ("exit", first, "bash"),
    ]


def test_a_hook_is_taken_back() -> None:
    told: list[int] = []
    with Machine(deterministic=True) as machine:
        take_back = machine.processes.on_exit(lambda process: told.append(process.pid))
        bash(machine, "/bin/true; :").run()
        assert len(told) == 2
        take_back()
        bash(machine, "/bin/true; :").run()
        assert len(told) == 2


def test_what_is_waited_for_and_zombies() -> None:
    states: dict[str, tuple[str, str]] = {}
    with Machine(deterministic=True) as machine:
        first = bash(machine, "sleep 0.2 & cat < <(sleep 0.1) & kill -STOP $! & read -t 0.05 x < <(sleep 1); exec true")

        def look(process: Process) -> None:
            states.update({one.name: (one.state, one.waits_for) for one in machine.processes if one is not process})

        machine.processes.on_exec(lambda process: look(process) if process.name == "true" else None)
        first.run()
        machine.finish()
        assert states["sleep"] == ("waiting", "time")
        assert states["cat"][0] in ("stopped", "zombie") or states["cat"][1].startswith("data in pipe:[")


def test_stopped_processes_and_zombies_are_told_apart() -> None:
    with Machine(deterministic=True, timeout=100) as machine:
        states: list[str] = []

        def ended(process: Process) -> None:
            if process.name == "true":
                states.extend(one.state for one in machine.processes if one.parent is not None)

        machine.processes.on_exit(ended)
        bash(machine, "sleep 5 & kill -STOP $!; (exit 1) & : $(:); /bin/true; kill -KILL %1").run()
        assert states.count("stopped") == 1
        assert set(states) <= {"stopped", "zombie", "running", "gone"}


def test_counters_of_a_child_are_what_it_reads_itself(tmp_path: Path) -> None:
    """/proc/self/stat of the child as it sees it: minor faults so far."""
    with Machine(deterministic=True, rw=[str(tmp_path)]) as machine:
        usage: dict[str, int] = {}

        def ended(process: Process) -> None:
            if process.name == "cut":
                usage["faults"] = process.usage.minor_faults
                usage["cpu"] = process.usage.cpu_ns
                usage["pages"] = process.usage.peak_pages

        machine.processes.on_exit(ended)
        bash(machine, f"cut -d' ' -f10 /proc/self/stat > {tmp_path}/out; :").run()
        said = int((tmp_path / "out").read_text())
    assert said <= usage["faults"] <= said + 25  # the text is made before the program writes and ends
    assert usage["cpu"] > 0 and usage["pages"] > 50


def test_faults_are_kept_for_who_is_looked_at() -> None:
    kept: list[int] = []
    with Machine(deterministic=True) as machine:
        machine.processes.on_exit(lambda process: kept.append(len(process.faults)))
        machine.processes.on_fork(lambda parent, child: None)  # from its birth on there is an object
        first = bash(machine, "/bin/true; :")
        first.run()
        assert kept[0] > 20 and kept[1] == len(first.faults) > 50


def test_objects_of_processes_that_are_gone_are_let_go() -> None:
    with Machine(deterministic=True, keep_faults=False) as machine:
        machine.processes.on_exit(lambda process: None)
        bash(machine, "for i in {1..150}; do (exit 0); done").run()
        assert len(machine._known) < 80


def test_threads_of_a_process() -> None:
    """Python's own threads: each is a thread of the machine's."""
    names: list[tuple[int, str]] = []
    script = "import threading, time\nt = [threading.Thread(target=time.sleep, args=(0.2,)) for _ in range(3)]\n"
    script += "[x.start() for x in t]\ntime.sleep(0.1)\nopen('/proc/self/comm').read()\n[x.join() for x in t]\n"
    with Machine(deterministic=True, keep_faults=False) as machine:

        def called(call: object) -> None:
            if getattr(call, "name", "") == "openat" and "comm" in getattr(call, "text", ""):
                names.extend((thread.tid, thread.state) for thread in process.tasks)

        machine.events.subscribe(called, ["syscall"])
        process = machine.spawn("/usr/bin/python3", ["python3", "-S", "-E", "-c", script], ENVIRONMENT)
        assert process.run().code == 0
        assert [state for _, state in names] == ["running", "waiting", "waiting", "waiting"]
        assert names[0][0] == process.pid
        assert len(process.tasks) == 1

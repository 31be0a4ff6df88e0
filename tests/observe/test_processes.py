"""The history of processes: by hand-made events with times worked out by hand, and of real runs by what they print."""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import pytest

from loadstone import Machine, events
from loadstone.errors import HostError
from loadstone.observe.processes import BLOCKED, READY, RUNNING, STOPPED, History, Process, Wait
from loadstone.observe.recorder import Recorder
from loadstone.observe.replay import read_record

SHELL = events.Program(1000, 1000, 0, "/bin/sh", "/usr/bin/dash", "sh", ("sh", "-c", "x"))
EVENTS = [
    SHELL,
    events.Fork(1000, 1000, 1001, 17, False, 40),
    events.Run(1000, 1000, 0, 10, 100, "blocked", 90, "a child"),
    events.Program(1001, 1001, 120, "./x", "/bin/x", "x", ("./x", "-y")),
    events.Fork(1001, 1001, 1002, 0, True, 130),
    events.Syscall(1001, 1001, 1, 0, "read", (0,) * 6, 0, None, False, ""),
    events.Run(1001, 1001, 1, 100, 150, "slice-end", 50, ""),
    events.Run(1001, 1002, 1, 150, 160, "stopped", 10, ""),
    events.Wake(1001, 1002, 200, 1001, "continued"),
    events.Run(1001, 1001, 0, 170, 300, "exited", 130, ""),
    events.Exit(1001, 1001, 3, None, 300, 190, 7, 1, 2, 40),
    events.Wake(1000, 1000, 300, 1001, "woken"),
    events.Run(1000, 1000, 0, 310, 400, "exited", 90, ""),
    events.Exit(1000, 1000, 0, "SIGTERM", 400, 180, 9, 0, 2, 50),
]


def history_of(told: Iterable[Any], details: bool = True) -> History:
    history = History(details=details)
    for event in told:
        history(event)
    return history


def test_states_of_threads_and_what_they_were_blocked_on() -> None:
    history = history_of(EVENTS)
    shell, child = history.processes
    assert [(span.start, span.end, span.state, span.cpu, span.what) for span in shell.threads[1000].spans] == [
        (0, 10, READY, -1, ""),
        (10, 100, RUNNING, 0, ""),
        (100, 300, BLOCKED, -1, "a child"),
        (300, 310, READY, -1, ""),
        (310, 400, RUNNING, 0, ""),
    ]
    assert [(span.start, span.end, span.state) for span in child.threads[1001].spans] == [
        (40, 100, READY), (100, 150, RUNNING), (150, 170, READY), (170, 300, RUNNING),
    ]  # fmt: skip
    assert [(span.start, span.end, span.state) for span in child.threads[1002].spans] == [
        (130, 150, READY), (150, 160, RUNNING), (160, 200, STOPPED), (200, 300, READY),
    ]  # fmt: skip
    assert shell.longest_wait == Wait(200, "a child")
    assert (child.total(RUNNING), child.total(READY), child.longest_wait) == (190, 60 + 20 + 20 + 100, None)


def test_the_tree_with_commands_and_results() -> None:
    history = history_of(EVENTS)
    (shell,) = history.roots
    (child,) = shell.children
    assert (child.pid, child.parent, child.born, child.calls, child.forked_only) == (1001, shell, 40, 1, False)
    assert (child.arguments, child.program, child.arguments_at(119)) == (("./x", "-y"), "/bin/x", ("sh", "-c", "x"))
    assert child.end is not None and shell.end is not None
    assert (child.end.status, shell.end.signal, history.until) == (3, "SIGTERM", 400)
    assert [(link.kind, link.source, link.target, link.what) for link in history.links] == [
        ("fork", 1000, 1001, ""),
        ("fork", 1001, 1002, ""),
        ("wake", 1001, 1002, ""),
        ("wake", 1001, 1000, "a child"),
    ]


def test_who_still_lives_has_waited_until_the_last_that_was_told() -> None:
    history = history_of(EVENTS[:7])
    history.pause()
    shell, child = history.processes
    assert shell.longest_wait == Wait(50, "a child")
    assert shell.threads[1000].spans[-1] == (100, 150, BLOCKED, -1, "a child")
    assert shell.end is None and child.threads[1001].spans[-1].end == 150
    for event in EVENTS[7:]:
        history(event)
    whole = history_of(EVENTS)
    assert [t.totals for t in history.threads()] == [t.totals for t in whole.threads()]


def test_without_details_only_totals_are_kept() -> None:
    whole, short = history_of(EVENTS), history_of(EVENTS, details=False)
    assert not short.links and not any(thread.spans for thread in short.threads())
    assert [p.longest_wait for p in short.processes] == [p.longest_wait for p in whole.processes]
    assert [t.totals for t in short.threads()] == [t.totals for t in whole.threads()]


def test_a_number_that_is_used_again_is_another_process() -> None:
    again = [*EVENTS[:-4], events.Fork(1000, 1000, 1001, 17, False, 350), EVENTS[-1]]
    history = history_of(again)
    assert [process.pid for process in history.processes] == [1000, 1001, 1001]
    assert [child.forked_only for child in history.roots[0].children] == [False, True]


def test_a_record_gives_the_events_back() -> None:
    written: list[str] = []
    recorder = Recorder(written.append, {"command": ["sh"]})
    for event in EVENTS:
        recorder(event)
    recorder.close()
    header, back = read_record("".join(written).splitlines(), "x", History.KINDS)
    assert header["command"] == ["sh"]
    assert list(back) == EVENTS


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ([], "line 1: this is no JSON object"),
        (["hello"], "line 1: this is no JSON object"),
        (["{}"], "is no record of events"),
        (['{"schema":"loadstone/events/1"}', "hello"], "line 2: this is no event"),
        (['{"schema":"loadstone/events/1"}', '{"event":"fork"}'], "line 2: the fork event lacks 'pid'"),
        (['{"schema":"loadstone/events/1"}', '{"event":"fork","pid":'], "line 2: this is no JSON object"),
        (['{"schema":"loadstone/events/1"}', '{"event":"wake","pid":"a"}'], "line 2: the wake event lacks invalid"),
        (['{"schema":"loadstone/events/1"}', "[" * 100_000], "line 2: this is no event"),
    ],
)
def test_what_is_no_record_is_said_so_with_the_line(lines: list[str], says: str) -> None:
    with pytest.raises(HostError, match=says.replace("(", r"\(")):
        list(read_record(lines, "x", History.KINDS)[1])


SCRIPT = """
echo $$ $PPID main
(read -r pid _ < /proc/self/stat; echo $BASHPID $PPID sub) &
wait
bash -c 'echo $$ $PPID child; bash -c "echo \\$\\$ \\$PPID grandchild"; exit 3' | cat
kill -TERM $$
"""


def run(script: str, **options: Any) -> tuple[History, list[Any]]:
    history = History(details=True)
    told: list[Any] = []
    with Machine(deterministic=True, cpu_count=2, keep_faults=False, **options) as machine:
        machine.events.subscribe(history, History.KINDS, texts=False)
        machine.events.subscribe(told.append, ["fork", "exit"])
        machine.spawn("/bin/bash", ["bash", "-c", script], {"PATH": "/usr/bin:/bin"}).run()
        machine.finish()
    return history, told


def test_the_tree_of_a_shell_script_is_what_its_processes_say(capfd: pytest.CaptureFixture[str]) -> None:
    history, _ = run(SCRIPT)
    said = {who: (int(pid), int(parent)) for pid, parent, who in map(str.split, capfd.readouterr().out.splitlines())}
    by_pid = {process.pid: process for process in history.processes}
    assert by_pid[said["child"][0]].parent is by_pid[said["main"][0]]
    assert by_pid[said["grandchild"][0]].parent is by_pid[said["child"][0]]
    assert by_pid[said["sub"][0]].forked_only
    assert by_pid[said["child"][0]].arguments[:2] == ("bash", "-c")
    endings = {process.pid: process.end for process in history.processes}
    main, child = endings[said["main"][0]], endings[said["child"][0]]
    assert main is not None and child is not None
    assert (main.signal, child.status) == ("SIGTERM", 3)


def check_life(process: Process) -> None:
    for thread in process.threads.values():
        assert thread.ended is not None
        spans = thread.spans
        assert spans[0].start == thread.born
        assert spans[-1].end <= thread.ended
        assert all(one.end == two.start for one, two in pairwise(spans)), spans
        assert all(span.end >= span.start for span in spans)


@pytest.mark.parametrize("seed", [None, 1, 2, 3])
def test_every_thread_is_in_one_state_at_a_time_and_every_cpu_has_one_thread(seed: int | None) -> None:
    history, _ = run("ls / | sort | tail -n 2 > /dev/null & sleep 0.01; (true; true) & wait", schedule_seed=seed)
    for process in history.processes:
        check_life(process)
    stays = sorted((span.cpu, span.start, span.end) for thread in history.threads() for span in thread.spans
                   if span.state == RUNNING)  # fmt: skip
    assert {cpu for cpu, *_ in stays} <= {0, 1}
    for (cpu, _, end), (other, start, _) in pairwise(stays):
        assert cpu != other or start >= end


def test_cpu_time_of_a_process_is_that_of_its_stays_on_a_single_cpu() -> None:
    """Where the clock moves by work only, and nobody else's slices lie in a stay."""
    history, _ = run("ls /usr/bin > /dev/null; true")
    for process in history.processes:
        assert process.end is not None
        assert process.end.cpu_ns == pytest.approx(process.total(RUNNING), rel=0.1, abs=200_000)


def test_a_header_line_is_enough_to_know_the_run() -> None:
    header, _ = read_record([json.dumps({"schema": "loadstone/events/1", "engine": "kvm"})], "x", ())
    assert header["engine"] == "kvm"

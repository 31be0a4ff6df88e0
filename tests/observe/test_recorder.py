"""Records are the JSON that the schema says, whatever strings a program brings along."""

from __future__ import annotations

import json

from loadstone import events
from loadstone.observe.fault_profile import ANONYMOUS, FaultProfile
from loadstone.observe.recorder import BATCH, Recorder
from loadstone.observe.text import printable
from loadstone.observe.trace import Tracer, event_kinds, line

FAULT = events.Fault(1, 1, 0, 0x7FFFF7FE5A10, 0x401000, "read", "user", "file", False, 15, '/a "b"\\\n\udcff', 4096, 77)
CALL = events.Syscall(1, 2, 0, 1, "write", (1, 2**64 - 1, 3, 4, 5, 6), 12, None, False, "")
FAILED = events.Syscall(1, 1, 0, 2, "open", (0, 0, 0, 0, 0, 0), -2, "ENOENT", False, 'open("/x", O_RDONLY)')
ALL = [
    FAULT,
    FAULT._replace(signal="SIGSEGV", major=True),
    CALL,
    FAILED,
    events.Map("protect", 1, 1, 4096, 8192, "r--p", 0, ""),
    events.Exec(1, 1, "/bin/true", "load_elf_binary", 3, "maps"),
    events.Switch(0, 1, 2, "blocked"),
    events.Signal(1, 1, "SIGSEGV", 1, 16, "default"),
    events.Exit(1, 1, 0, "SIGSEGV"),
    events.Exit(1, 2, 3, None, 9_000, 4_000, 5, 1, 2, 77, 1_000),
    events.Run(1, 2, 1, 1_000, 4_000, "blocked", 700, 'data in "a" pipe'),
    events.Wake(1, 2, 5_000, 3, "woken"),
    events.Program(1, 2, 6_000, "./x", "/bin/sh", "x", ("x", 'a "b"', "\udcff")),
    events.Fork(1, 1, 4, 17, False, 8_000),
]


def _record(batch: list[object]) -> list[dict[str, object]]:
    written: list[str] = []
    recorder = Recorder(written.append, {"version": "0", "environment": ["A=\udc80"]})
    for record in batch:
        recorder(record)
    recorder.close()
    return [json.loads(text) for text in "".join(written).splitlines()]


def test_every_kind_of_event_is_a_line_of_json() -> None:
    header, *lines = _record(list(ALL))
    assert header == {"schema": "loadstone/events/1", "version": "0", "environment": ["A=\udc80"]}
    assert [line["seq"] for line in lines] == list(range(len(ALL)))
    for entry in lines:
        assert {"event", "seq", "pid", "tid", "cpu"} <= set(entry)
    fault, killed, call, failed, protect, stage, switch, signal, died, exited, *process = lines
    assert fault == {
        "event": "fault", "seq": 0, "pid": 1, "tid": 1, "cpu": 0, "address": 0x7FFFF7FE5A10, "pc": 0x401000,
        "access": "read", "mode": "user", "cause": "file", "major": False, "around": 15,
        "mapping": '/a "b"\\\n\udcff', "offset": 4096, "frame": 77,
    }  # fmt: skip
    assert (killed["signal"], killed["major"]) == ("SIGSEGV", True)
    assert (call["args"], call["result"]) == ([1, 2**64 - 1, 3, 4, 5, 6], 12)
    assert "errno" not in call
    assert failed["errno"] == "ENOENT"
    assert "result" not in failed
    assert (protect["event"], protect["start"], protect["perms"]) == ("protect", 4096, "r--p")
    assert (stage["stage"], stage["function"]) == (3, "load_elf_binary")
    assert (switch["from"], switch["to"], switch["why"], switch["pid"]) == (1, 2, "blocked", 1)
    assert (signal["code"], signal["action"]) == (1, "default")
    assert (died["signal"], exited["signal"], exited["status"]) == ("SIGSEGV", None, 3)
    assert (exited["time"], exited["cpu_ns"], exited["peak_pages"], exited["system_ns"]) == (9_000, 4_000, 77, 1_000)
    run, wake, program, fork = process
    assert (run["cpu"], run["start"], run["end"], run["waits_for"]) == (1, 1_000, 4_000, 'data in "a" pipe')
    assert (wake["time"], wake["by"], wake["why"], wake["cpu"]) == (5_000, 3, "woken", 1)
    assert (program["program"], program["arguments"]) == ("/bin/sh", ["x", 'a "b"', "\udcff"])
    assert (fork["child"], fork["time"], fork["thread"]) == (4, 8_000, False)


def test_batches_keep_order_and_numbers() -> None:
    count = BATCH * 2 + 17
    _, *lines = _record([FAULT._replace(address=n) for n in range(count)])
    assert [entry["address"] for entry in lines] == list(range(count))
    assert lines[-1]["seq"] == count - 1


def test_profile_counts_by_object_and_cause() -> None:
    profile = FaultProfile()
    for record in (
        *ALL,
        FAULT._replace(cause="anonymous", mapping="", around=0, mode="kernel"),
        FAULT._replace(address=FAULT.address + 1, major=True),
    ):
        profile(record)
    file, anonymous = profile.objects[FAULT.mapping], profile.objects[ANONYMOUS]
    assert (file.minor, file.major, file.around, len(file.pages), file.signals) == (1, 1, 30, 1, 1)
    assert (anonymous.total, anonymous.kernel) == (1, 1)
    assert profile.total == 3
    assert profile.causes() == ["file", "anonymous"]
    assert profile.calls == {"write": 1, "open": 1}
    assert profile.call_errors("open") == {"ENOENT": 1}


def test_trace_lines() -> None:
    assert line(FAILED) == 'open("/x", O_RDONLY) = -1 ENOENT (No such file or directory)'
    assert line(CALL) == "write(0x1, 0xffffffffffffffff, 0x3, 0x4, 0x5, 0x6) = 12"
    assert line(CALL._replace(name="mmap", result=0x7FFFF7FB4000)).endswith(" = 0x7ffff7fb4000")
    text = line(FAULT._replace(mapping="/lib/\x1b[2Jevil"))
    assert "\x1b" not in text
    assert "file, minor, +15 around" in text
    assert "7ffff7fe5a10" in text
    for record in ALL:
        assert "\n" not in line(record)


def test_tracer_names_other_threads_than_the_first() -> None:
    written: list[str] = []
    tracer = Tracer(written.append)
    tracer(CALL)
    tracer(CALL._replace(pid=7, tid=7))
    assert not written[0].startswith("[pid")
    assert written[1].startswith("[pid 7] write(")
    assert event_kinds(("syscall",)) == ("syscall", "signal", "exit")
    assert event_kinds(("fault",)) == ("fault",)
    assert event_kinds(("process",)) == ("fork", "program", "run", "wake", "exit")
    assert event_kinds(("syscall", "process")) == ("syscall", "signal", "exit", "fork", "program", "run", "wake")


def test_printable_writes_out_what_a_terminal_obeys() -> None:
    assert printable("plain ä €") == "plain ä €"
    assert printable("\x1b[31m\n\udcff\u202e") == "\\x1b[31m\\n\\xff\\u202e"

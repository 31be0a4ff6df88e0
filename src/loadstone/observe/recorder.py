"""`--record FILE.jsonl`: every event as one line of JSON, schema `loadstone/events/1`.

Formatting is by templates in batches: `json.dumps` of a fault costs eight times as much. Only strings go through the
JSON encoder, once each. No line holds the time of day, so the record of a deterministic run is the same on every run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from json import dumps
from typing import Any

from loadstone import events

SCHEMA = "loadstone/events/1"
BATCH = 4096  # events kept before they are written
MOST_STRINGS = 16_384  # encoded strings kept; one more empties the table


def header_line(facts: Mapping[str, Any]) -> str:
    """The first line: the schema, then what the caller knows of the run, in its order."""
    return dumps({"schema": SCHEMA, **facts}, separators=(",", ":")) + "\n"


class Recorder:
    """Subscribe it to a machine's events; `close()` writes what is left.

    `write` takes text; whatever it raises (a full disk) goes through to whoever emitted the event.
    """

    def __init__(self, write: Callable[[str], object], header: Mapping[str, Any]) -> None:
        self._write = write
        self._pending: list[Any] = []
        self._strings: dict[str, str] = {}
        self._cpu: dict[int, int] = {}  # the core on which a thread was last seen
        self._pid: dict[int, int] = {}
        self.written = 0
        write(header_line(header))

    def __call__(self, record: Any) -> None:
        """Take one event."""
        pending = self._pending
        pending.append(record)
        if len(pending) >= BATCH:
            self.flush()

    def flush(self) -> None:
        """Write the events taken so far."""
        batch, self._pending = self._pending, []
        lines = []
        sequence = self.written
        for record in batch:
            lines.append(_FORMATS[type(record)](self, sequence, record))
            sequence += 1
        self.written = sequence
        if lines:
            self._write("\n".join(lines) + "\n")

    close = flush

    def _string(self, text: str) -> str:
        known = self._strings.get(text)
        if known is None:
            if len(self._strings) >= MOST_STRINGS:
                self._strings.clear()
            known = self._strings[text] = dumps(text)
        return known

    def _head(self, kind: str, sequence: int, pid: int, tid: int) -> str:
        self._pid[tid] = pid
        return f'{{"event":"{kind}","seq":{sequence},"pid":{pid},"tid":{tid},"cpu":{self._cpu.get(tid, 0)}'

    def _fault(self, sequence: int, e: events.Fault) -> str:
        self._cpu[e.tid] = e.cpu
        signal = f',"signal":"{e.signal}"' if e.signal else ""
        return (
            f'{{"event":"fault","seq":{sequence},"pid":{e.pid},"tid":{e.tid},"cpu":{e.cpu},"address":{e.address},'
            f'"pc":{e.pc},"access":"{e.access}","mode":"{e.mode}","cause":"{e.cause}",'
            f'"major":{"true" if e.major else "false"},"around":{e.around},"mapping":{self._string(e.mapping)},'
            f'"offset":{e.offset},"frame":{e.frame}{signal}}}'
        )

    def _syscall(self, sequence: int, e: events.Syscall) -> str:
        self._cpu[e.tid] = e.cpu
        outcome = f'"errno":"{e.errno}"' if e.errno else f'"result":{e.result}'
        return (
            f"{self._head('syscall', sequence, e.pid, e.tid)},"
            f'"number":{e.number},"name":{self._string(e.name)},"args":[{",".join(map(str, e.args))}],{outcome},'
            f'"restarted":{"true" if e.restarted else "false"}}}'
        )

    def _map(self, sequence: int, e: events.Map) -> str:
        return (
            f"{self._head(e.event, sequence, e.pid, e.tid)},"
            f'"start":{e.start},"end":{e.end},"perms":"{e.perms}","offset":{e.offset},"path":{self._string(e.path)}}}'
        )

    def _exec(self, sequence: int, e: events.Exec) -> str:
        return (
            f"{self._head('exec', sequence, e.pid, e.tid)},"
            f'"path":{self._string(e.path)},"stage":{e.step},"function":{self._string(e.function)},'
            f'"text":{self._string(e.text)}}}'
        )

    def _switch(self, sequence: int, e: events.Switch) -> str:
        self._cpu[e.target] = e.cpu
        pid = self._pid.get(e.target, e.target)
        return (
            f"{self._head('switch', sequence, pid, e.target)},"
            f'"from":{e.source},"to":{e.target},"why":{self._string(e.why)},"work":{e.work},'
            f'"waits_for":{self._string(e.waits_for)},"same_directory":{"true" if e.same_directory else "false"}}}'
        )

    def _signal(self, sequence: int, e: events.Signal) -> str:
        return (
            f"{self._head('signal', sequence, e.pid, e.tid)},"
            f'"signal":"{e.signal}","code":{e.code},"address":{e.address},"action":"{e.action}"}}'
        )

    def _fork(self, sequence: int, e: events.Fork) -> str:
        self._pid[e.child] = e.pid if e.thread else e.child
        thread = "true" if e.thread else "false"
        return (
            f"{self._head('fork', sequence, e.pid, e.tid)},"
            f'"child":{e.child},"flags":{e.flags},"thread":{thread},"time":{e.time}}}'
        )

    def _exit(self, sequence: int, e: events.Exit) -> str:
        signal = f'"{e.signal}"' if e.signal else "null"
        return (
            f"{self._head('exit', sequence, e.pid, e.tid)},"
            f'"status":{e.status},"signal":{signal},"time":{e.time},"cpu_ns":{e.cpu_ns},'
            f'"minor_faults":{e.minor_faults},"major_faults":{e.major_faults},"switches":{e.switches},'
            f'"peak_pages":{e.peak_pages},"system_ns":{e.system_ns}}}'
        )

    def _run(self, sequence: int, e: events.Run) -> str:
        self._cpu[e.tid] = e.cpu
        return (
            f"{self._head('run', sequence, e.pid, e.tid)},"
            f'"start":{e.start},"end":{e.end},"why":"{e.why}","work":{e.work},'
            f'"waits_for":{self._string(e.waits_for)}}}'
        )

    def _wake(self, sequence: int, e: events.Wake) -> str:
        return f'{self._head("wake", sequence, e.pid, e.tid)},"time":{e.time},"by":{e.by},"why":"{e.why}"}}'

    def _program(self, sequence: int, e: events.Program) -> str:
        return (
            f"{self._head('program', sequence, e.pid, e.tid)},"
            f'"time":{e.time},"path":{self._string(e.path)},"program":{self._string(e.program)},'
            f'"name":{self._string(e.name)},"arguments":{dumps(e.arguments, separators=(",", ":"))}}}'
        )


_FORMATS: dict[type, Callable[[Recorder, int, Any], str]] = {
    events.Fault: Recorder._fault,
    events.Syscall: Recorder._syscall,
    events.Map: Recorder._map,
    events.Exec: Recorder._exec,
    events.Switch: Recorder._switch,
    events.Signal: Recorder._signal,
    events.Fork: Recorder._fork,
    events.Exit: Recorder._exit,
    events.Run: Recorder._run,
    events.Wake: Recorder._wake,
    events.Program: Recorder._program,
}

"""A record (`loadstone run --record FILE.jsonl`) as events again, for what works on events."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from loadstone import events
from loadstone.errors import HostError
from loadstone.observe.recorder import SCHEMA

Line = dict[str, Any]


def read_record(lines: Iterable[str], name: str, kinds: Iterable[str]) -> tuple[Line, Iterator[Any]]:
    """The header of a record, and its events of `kinds` (see `loadstone.events.KINDS`; not fault, map or exec).

    `name` is the record's, for messages. Lines of other kinds are passed over unread. Raises HostError, when the line
    is reached, for what is no record of this schema.
    """
    numbered = enumerate(lines, 1)
    first = next(numbered, (1, ""))[1]
    header = _parsed(first, name, 1)
    if header.get("schema") != SCHEMA:
        raise HostError(f"{name} is no record of events: its first line does not say {SCHEMA}")
    return header, _events(numbered, name, frozenset(kinds))


def _events(numbered: Iterable[tuple[int, str]], name: str, kinds: frozenset[str]) -> Iterator[Any]:
    for number, text in numbered:
        kind = text[10:40].partition('"')[0] if text.startswith('{"event":"') else ""
        if kind not in kinds:
            if not kind:
                raise HostError(f"{name}, line {number}: this is no event")
            continue
        line = _parsed(text, name, number)
        try:
            yield _MAKERS[kind](line)
        except (KeyError, TypeError, ValueError) as error:
            raise HostError(f"{name}, line {number}: the {kind} event lacks {error}") from error


def _parsed(text: str, name: str, number: int) -> Line:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise HostError(f"{name}, line {number}: this is no JSON object; is {name} a record made with --record?")
    return found


_CASTS: dict[str, Callable[[Any], Any]] = {
    "int": int,
    "str": str,
    "bool": bool,
    "str | None": lambda value: None if value is None else str(value),
    "tuple[int, ...]": lambda values: tuple(int(value) for value in values),
    "tuple[str, ...]": lambda values: tuple(str(value) for value in values),
}


def _maker(kind: Any, renamed: Line | None = None, absent: Line | None = None) -> Callable[[Line], Any]:
    """What makes an event of a line: fields by name, but for those `renamed`; `absent` are values of those left out."""
    names = renamed or {}
    columns = [(names.get(field, field), _CASTS[kind.__annotations__[field]]) for field in kind._fields]

    def make(line: Line) -> Any:
        whole = {**absent, **line} if absent else line
        return kind(*(cast(whole[name]) for name, cast in columns))

    return make


_MAKERS: dict[str, Callable[[Line], Any]] = {
    "fork": _maker(events.Fork),
    "program": _maker(events.Program),
    "run": _maker(events.Run),
    "wake": _maker(events.Wake),
    "exit": _maker(events.Exit, absent={"system_ns": 0}),
    "switch": _maker(events.Switch, {"source": "from", "target": "to"}),
    "syscall": _maker(events.Syscall, absent={"result": -1, "errno": None, "text": "", "shown": "", "note": ""}),
}

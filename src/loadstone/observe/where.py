"""One place followed through all three spaces: the file, virtual memory, and frames.

`parse` understands what a user writes, `locate` turns it into addresses, `follow` collects all there is to know of one.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from loadstone.lean import NamedTuple
from loadstone.machine.paging import (
    ACCESSED,
    DIRTY,
    FRAME_MASK,
    NO_EXECUTE,
    PRESENT,
    PROTNONE,
    USER,
    USER_END,
    WRITABLE,
)
from loadstone.machine.physical import ANONYMOUS, FRAME_SHIFT, OWNER_NAMES
from loadstone.observe.maps import Mapping as Area
from loadstone.observe.object_file import LoadSegment, ObjectFile, Section
from loadstone.observe.symbols import Symbolizer

PAGE = 4096


class NotFound(Exception):  # noqa: N818 - an answer, not a failure
    """The place does not exist; the message is for a person."""


class Query(NamedTuple):
    """What was asked for: an address, a place in a file, or a symbol with a distance from it."""

    text: str
    address: int | None
    file: str | None
    symbol: str | None
    offset: int


class Spot(NamedTuple):
    """One address that answers a query, with the file offset it was asked for by, if it was."""

    address: int | None
    path: str
    file_offset: int | None


class Level(NamedTuple):
    """One step of a page walk. Frames are numbers; `entry` is the 64-bit entry."""

    level: str
    table: int
    slot: int
    entry: int


class Mapper(NamedTuple):
    """Somebody who has the same frame mapped."""

    pid: int
    address: int
    mapping: Area | None
    entry: int


class Answer(NamedTuple):
    """All that is known of one place. What does not apply is None, empty or -1."""

    query: str
    address: int | None
    name: str
    path: str
    file_offset: int | None
    section: Section | None
    segment: LoadSegment | None
    linked: int | None
    bias: int
    mapping: Area | None
    levels: tuple[Level, ...]
    frame: int
    owner: str
    references: int
    others: tuple[Mapper, ...]
    byte: int | None


class Situation(NamedTuple):
    """A process stopped somewhere, as far as `follow` needs it."""

    pid: int
    symbols: Symbolizer
    page_table: Any
    memory: Any
    others: Sequence[tuple[int, Sequence[Area], Any]]  # (pid, maps, page table) of every process, this one included


def parse(text: str, paths: Iterable[str]) -> Query:
    """Understand `0x401136`, `main`, `main+0x10`, `libc.so.6+0x1000`, `/bin/ls+4096`. Raises NotFound.

    `paths` are the files that are mapped: a name before the `+` that is one of theirs, or has a slash, is a file.
    """
    name, plus, distance = text.rpartition("+")
    if not plus:
        number = _number(text)
        return Query(text, number, None, None if number is not None else text, 0)
    offset = _number(distance)
    if offset is None:
        raise NotFound(f"{text}: what follows the + is not a number; write 0x1f or 31")
    start = _number(name)
    if start is not None:
        return Query(text, start + offset, None, None, 0)
    known = list(dict.fromkeys(path for path in paths if path.startswith(("/", "["))))
    for path in known:
        if name in (path, os.path.basename(path)) or ("/" in name and os.path.realpath(name) == path):
            return Query(text, None, path, None, offset)
    if "/" in name:
        raise NotFound(f"{name} is not mapped in this process; mapped are {', '.join(known)}")
    return Query(text, None, None, name, offset)


def _number(text: str) -> int | None:
    try:
        return int(text, 16) if text.lower().startswith("0x") else int(text, 10)
    except ValueError:
        return None


def locate(query: Query, symbols: Symbolizer, program: str, known: Mapping[str, int] | None = None) -> list[Spot]:
    """The addresses a query means: one, or several where a page of a file is mapped more than once. Raises NotFound.

    `known` has addresses of symbols that no table has: `main` of a stripped program that has been run so far.
    """
    if query.address is not None:
        return [Spot(query.address, "", None)]
    if query.symbol is not None:
        found = symbols.address_of(query.symbol, program)
        if found is None:
            found = (known or {}).get(query.symbol) or symbols.address_of(query.symbol)
        if found is None:
            raise NotFound(
                f"no symbol {query.symbol} in {program} or what is mapped with it; a stripped file has few: try "
                "--at main, an address or FILE+OFFSET"
            )
        return [Spot(found + query.offset, "", None)]
    path = query.file or ""
    spots = [
        Spot(mapping.start + query.offset - mapping.offset, path, query.offset)
        for mapping in symbols.maps
        if mapping.path == path and mapping.offset <= query.offset < mapping.offset + mapping.size
    ]
    return spots or [Spot(None, path, query.offset)]


def follow(query: str, spot: Spot, at: Situation) -> Answer:
    """Everything about one spot."""
    if spot.address is None:
        return _unmapped(query, spot, at)
    address = spot.address
    place = at.symbols.place(address)
    found, mapping = place.object, place.mapping
    linked = address - place.bias if found else None
    offset = spot.file_offset
    if offset is None and mapping is not None and mapping.path.startswith("/"):
        offset = mapping.offset + address - mapping.start
    section, segment = _parts(found, linked, offset)
    levels = tuple(Level(*step) for step in at.page_table.walk(address)) if address < USER_END else ()
    leaf = levels[-1].entry if len(levels) == 4 else 0
    frame = (leaf & FRAME_MASK) >> FRAME_SHIFT if leaf & (PRESENT | PROTNONE) else -1
    others = tuple(_mappers(frame, address, at)) if frame >= 0 else ()
    return Answer(
        query=query,
        address=address,
        name=place.name,
        path=(mapping.path if mapping else "") or place.path,
        file_offset=offset,
        section=section,
        segment=segment,
        linked=linked,
        bias=place.bias if found else 0,
        mapping=mapping,
        levels=levels,
        frame=frame,
        owner=_owner(at.memory, frame),
        references=_references(at.memory, frame, others),
        others=others,
        byte=at.memory.page(frame)[address % PAGE] if frame >= 0 else None,
    )


def _parts(
    found: ObjectFile | None, linked: int | None, offset: int | None
) -> tuple[Section | None, LoadSegment | None]:
    if found is None or linked is None:
        return None, None
    section = found.section_at(linked)
    if section is None and offset is not None:
        section = found.section_at_offset(offset)
    return section, found.segment_at(linked)


def _unmapped(query: str, spot: Spot, at: Situation) -> Answer:
    """A byte of a file that no VMA covers: section headers, symbol tables, debug information."""
    instances = at.symbols.instances(spot.path)
    found = instances[0][1] if instances else None
    offset = spot.file_offset or 0
    section = found.section_at_offset(offset) if found else None
    segment = found.segment_at_offset(offset) if found else None
    return Answer(
        query, None, "", spot.path, offset, section, segment, None, 0, None, (), -1, "", 0, (), None
    )  # fmt: skip


def _owner(memory: Any, frame: int) -> str:
    return OWNER_NAMES[memory.owner(frame)] if frame >= 0 else ""


def _references(memory: Any, frame: int, others: tuple[Mapper, ...]) -> int:
    """Who points at the frame: the PTE that led to it, the others, and whose it is if it is nobody's own."""
    return 0 if frame < 0 else 1 + len(others) + (memory.owner(frame) != ANONYMOUS)


def _mappers(frame: int, address: int, at: Situation) -> Iterable[Mapper]:
    """Every other PTE of every process that points at the frame."""
    for pid, maps, table in at.others:
        for mapping in maps:
            if mapping.start >= USER_END:
                continue
            for where, _, entry in table.entries(mapping.start, mapping.end):
                same = entry & (PRESENT | PROTNONE) and (entry & FRAME_MASK) >> FRAME_SHIFT == frame
                if same and (pid != at.pid or where != address & -PAGE):
                    yield Mapper(pid, where, mapping, entry)


def bits(entry: int) -> list[tuple[str, bool]]:
    """The bits of an entry that matter here, by their usual names, from low to high."""
    names = (("P", PRESENT), ("RW", WRITABLE), ("US", USER), ("A", ACCESSED), ("D", DIRTY), ("NX", NO_EXECUTE))
    return [(name, bool(entry & bit)) for name, bit in names]

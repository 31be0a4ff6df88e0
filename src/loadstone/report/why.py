"""`explain --why`: for everything in an image, by which rule and in which function the kernel put it there."""

from __future__ import annotations

from typing import IO, TYPE_CHECKING

from loadstone.linux.exec import auxv, origins
from loadstone.report.paper import DIM, Paper, count

if TYPE_CHECKING:
    from loadstone.linux.exec.origins import Origin
    from loadstone.observe.image import Image

_HEADINGS = {
    "mapping": "Why each mapping is there",
    "auxv": "Why each entry of the auxiliary vector is there",
    "stack": "Why each part of the stack is there",
    "register": "Why the registers hold what they do",
    "break": "Why the program break is there",
    "note": "Why /proc/PID/stat shows what it does",
}
_MOST = 6  # things of one class that are listed


def write_why(image: Image, stream: IO[str], width: int | None = None) -> None:
    """Write the rules behind an image, class by class."""
    paper = Paper(stream, width)
    members = _members(image)
    for kind, heading in _HEADINGS.items():
        paper.heading(heading)
        for origin in origins.all_origins():
            if origin.kind == kind and origin in members:
                _write_class(paper, origin, members[origin])


def _write_class(paper: Paper, origin: Origin, things: list[str]) -> None:
    paper.line(f"{origin.name}: {origin.function} ({origin.file})", style="bold")
    paper.paragraph(f"{origin.rule}.", indent=4)
    for thing in things[:_MOST]:
        paper.line(thing, indent=4, style=DIM)
    if len(things) > _MOST:
        paper.line(f"and {count(len(things) - _MOST, 'more', 'more')}", indent=4, style=DIM)


def _members(image: Image) -> dict[Origin, list[str]]:
    """Everything in the image, by the class that it belongs to."""
    found: dict[Origin, list[str]] = {}

    def add(origin: Origin, text: str) -> None:
        found.setdefault(origin, []).append(text)

    for line in image.maps:
        made = origins.of_mapping(line.path, image.program, image.interpreter_file)
        add(made, f"{line.start:08x}-{line.end:08x} {line.perms} {line.path}".rstrip())
    for key, value in image.auxv:
        name = auxv.name(key)
        add(origins.of_auxv(name), f"{name} {value:#x}")
    for word in image.layout:
        if not word.what.startswith("AT_") or word.what.endswith((" bytes", " string")):
            add(origins.of_word(word.what), f"{word.address:x} {count(word.size, 'byte')}: {word.what}")
    for name, value in image.registers.items():
        add(origins.of_register(name), f"{name} {value:#x}")
    add(origins.of_note("start_brk"), f"{image.brk:#x}")
    add(origins.of_note("start_stack"), f"{image.pointer:#x}")
    add(origins.of_note("comm"), image.name)
    return found

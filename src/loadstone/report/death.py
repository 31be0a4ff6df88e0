"""One line for a program that a signal killed: which fault, where, in which mapping and symbol."""

from __future__ import annotations

import os

from loadstone.observe.death import Death, code_name
from loadstone.observe.maps import find_mapping
from loadstone.observe.symbols import Place, Symbolizer
from loadstone.observe.text import printable

# Signals that people send on purpose, and the one of a closed pipe: a shell says nothing about these two either.
QUIET = ("SIGINT", "SIGPIPE")


def death_line(death: Death, program: str, symbols: Symbolizer) -> str:
    """`SIGSEGV (SEGV_MAPERR) reading 0x10 at main+0x15 in ./crash (.text); 0x10 is not mapped`, without a newline."""
    code = code_name(death.signal, death.code)
    what = f"{death.signal} ({code})" if code else death.signal
    here = _where(symbols.place(death.pc), program)
    if death.access == "execute":
        return printable(f"{what} executing {death.address:#x}, {_target(symbols, death.address)}")
    if death.access:
        verb = "writing" if death.access == "write" else "reading"
        return printable(f"{what} {verb} {death.address:#x} at {here}; {_target(symbols, death.address)}")
    if death.signal == "SIGSEGV" and code == "SI_KERNEL":
        return printable(
            f"{what} at {here}: a general protection fault (no canonical address, or a privileged instruction)"
        )
    return printable(f"{what} at {here}")


def _where(place: Place, program: str) -> str:
    """`main+0x15 in ./crash (.text)`."""
    if place.mapping is None:
        return f"{place.address:#x}, which is not mapped"
    file = place.path or place.mapping.path or "anonymous memory"
    shown = program if os.path.basename(file) == os.path.basename(program) else os.path.basename(file) or file
    section = place.object.section_at(place.address - place.bias) if place.object else None
    inside = f" ({section.name})" if section and section.name else f" ({place.mapping.perms})"
    return f"{place.name or f'{place.address:#x}'} in {shown}{inside}"


def _target(symbols: Symbolizer, address: int) -> str:
    mapping = find_mapping(symbols.maps, address)
    if mapping is None:
        return f"nothing is mapped there{_near(symbols, address)}"
    place = symbols.place(address)
    name = f"{place.symbol.name} in " if place.symbol else ""
    file = os.path.basename(mapping.path) or "anonymous memory"
    if place.path and not mapping.path:
        file = os.path.basename(place.path)
    return f"that is {name}{file}, mapped {mapping.perms}"


def _near(symbols: Symbolizer, address: int) -> str:
    """What is close by: a stack that overflowed, an array that was overrun."""
    for mapping in symbols.maps:
        if 0 < mapping.start - address <= 1 << 20:
            distance = mapping.start - address
            if mapping.path == "[stack]":
                return f", {distance:#x} below [stack], which may not grow that far"
            return f", {distance:#x} below {os.path.basename(mapping.path) or 'anonymous memory'}"
        if 0 <= address - mapping.end < 1 << 16:
            distance = address - mapping.end
            return f", {distance:#x} past the end of {os.path.basename(mapping.path) or 'anonymous memory'}"
    return ""

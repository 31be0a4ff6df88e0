"""Names for the addresses of an address space: which object an address belongs to, and where a symbol ended up."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from loadstone.lean import NamedTuple
from loadstone.observe.maps import Mapping, find_mapping
from loadstone.observe.object_file import ObjectFile, Symbol, read_object

PAGE = 4096


class Place(NamedTuple):
    """An address with what is known of it."""

    address: int
    mapping: Mapping | None
    object: ObjectFile | None
    path: str  # of the object, "" without one
    bias: int  # what was added to the object's linked addresses
    symbol: Symbol | None

    @property
    def name(self) -> str:
        """`main+0x15`; "" where no symbol is known."""
        if self.symbol is None:
            return ""
        distance = self.address - self.bias - self.symbol.address
        return f"{self.symbol.name}+{distance:#x}" if distance else self.symbol.name

    def __str__(self) -> str:
        file = os.path.basename(self.path) or self.path
        if self.name:
            return f"{self.name} in {file}"
        if self.path:
            return f"{file}+{self.address - self.bias:#x}"
        if self.mapping is not None:
            return f"{self.mapping.path or '[anonymous]'}+{self.address - self.mapping.start:#x}"
        return f"{self.address:#x}"


class _Loaded(NamedTuple):
    start: int
    end: int
    bias: int
    path: str
    object: ObjectFile


class Symbolizer:
    """Describes addresses of one address space. Objects are read when an address in them is first asked about.

    `open_object` turns a mapping's path into an ObjectFile or None; the default reads the host's file of that path.
    """

    def __init__(self, maps: Sequence[Mapping], open_object: Callable[[str], ObjectFile | None] = read_object) -> None:
        self.maps = list(maps)
        self._open = open_object
        self._objects: dict[str, ObjectFile | None] = {}
        self._loaded: dict[str, list[_Loaded]] = {}

    def place(self, address: int) -> Place:
        """What is at `address`."""
        mapping = find_mapping(self.maps, address)
        if mapping is None:
            return Place(address, None, None, "", 0, None)
        for path in self._candidates(mapping):
            for start, end, bias, _, found in self._instances(path):
                if start <= address < end:
                    return Place(address, mapping, found, path, bias, found.symbol_at(address - bias))
        return Place(address, mapping, None, mapping.path if mapping.path.startswith("/") else "", mapping.start, None)

    def describe(self, address: int) -> str:
        """`name+0x4 in libc.so.6`, or the best that can be said."""
        return str(self.place(address))

    def address_of(self, name: str, path: str | None = None) -> int | None:
        """Where the symbol `name` is: in the object `path`, or in the first that has it, in order of first mapping."""
        for candidate in [path] if path else self._paths():
            for loaded in self._instances(candidate)[:1]:
                symbol = loaded.object.symbol_named(name)
                if symbol is not None:
                    return symbol.address + loaded.bias
        return None

    def instances(self, path: str) -> list[tuple[int, ObjectFile]]:
        """(bias, object) of each time the object `path` is in the address space."""
        return [(loaded.bias, loaded.object) for loaded in self._instances(path)]

    def _paths(self) -> list[str]:
        return list(dict.fromkeys(m.path for m in self.maps if m.path.startswith(("/", "[vdso]"))))

    def _candidates(self, mapping: Mapping) -> list[str]:
        """The objects that may own `mapping`: its own path, or, for `.bss`, the file mapping it continues."""
        if mapping.path and mapping.path != "[heap]":
            return [mapping.path]
        before = [m for m in self.maps if m.end <= mapping.start and m.path.startswith("/")]
        return [before[-1].path] if before else []

    def _instances(self, path: str) -> list[_Loaded]:
        if path not in self._loaded:
            found = self._object(path)
            self._loaded[path] = [] if found is None else self._place_object(path, found)
        return self._loaded[path]

    def _object(self, path: str) -> ObjectFile | None:
        if path not in self._objects:
            self._objects[path] = self._open(path)
        return self._objects[path]

    def _place_object(self, path: str, found: ObjectFile) -> list[_Loaded]:
        if not found.segments:
            return []
        low = min(s.address for s in found.segments) & -PAGE
        high = max(s.address + s.memory_size for s in found.segments)
        loaded: list[_Loaded] = []
        for mapping in self.maps:
            if mapping.path != path or any(one.start <= mapping.start < one.end for one in loaded):
                continue
            bias = _bias(found, mapping)
            if bias is not None:
                loaded.append(_Loaded(low + bias, -(-(high + bias) // PAGE) * PAGE, bias, path, found))
        return loaded


def _bias(found: ObjectFile, mapping: Mapping) -> int | None:
    """What was added to linked addresses, from the file range and protection of one mapping of the object."""
    prot = sum(bit for bit, letter in ((4, "r"), (2, "w"), (1, "x")) if letter in mapping.perms)
    fitting = [
        segment
        for segment in found.segments
        if segment.offset & -PAGE <= mapping.offset < segment.offset + max(segment.file_size, 1)
    ]
    fitting.sort(key=lambda segment: segment.flags & 7 != prot)
    for segment in fitting:
        return mapping.start - mapping.offset + (segment.offset & -PAGE) - (segment.address & -PAGE)
    return None

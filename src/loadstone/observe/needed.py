"""Which files a program needs in order to start: itself, its interpreters, its libraries. For `--untrusted`.

The search is the dynamic linker's (man 8 ld.so): DT_RPATH, LD_LIBRARY_PATH, DT_RUNPATH, the cache, the default
directories; musl's is the same without the cache. Too many candidates do no harm, they are only made visible. Files are
hostile here too: every number below bounds what is read.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Mapping

from loadstone.observe.object_file import FileSource, NotAnObject

PT_DYNAMIC, PT_INTERP, PT_LOAD = 2, 3, 1
DT_NEEDED, DT_STRTAB, DT_RPATH, DT_RUNPATH = 1, 5, 15, 29
DEFAULT_DIRECTORIES = (
    "/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib64", "/usr/lib64", "/lib", "/usr/lib", "/usr/local/lib",
    "/lib/i386-linux-gnu", "/usr/lib/i386-linux-gnu", "/lib32", "/usr/lib32",
)  # fmt: skip
CACHE = "/etc/ld.so.cache"
CONFIGURATION = (CACHE, "/etc/ld.so.preload", "/etc/ld-musl-x86_64.path")
MOST_FILES, MOST_HEADERS, MOST_TAGS, LONGEST = 512, 512, 8192, 4096
MOST_INTERPRETERS = 6
_CACHE_MAGIC = b"glibc-ld.so.cache1.1"


def needed_files(path: str, root: str = "/", environment: Mapping[str, str] | None = None) -> list[str]:
    """The guest paths that `path` (absolute) needs, itself first. `root` is the host's directory for the guest's `/`.

    A file that cannot be read needs nothing: executing it will say what is wrong.
    """
    return list(_Search(root, environment or {}).run(path))


class _Search:
    def __init__(self, root: str, environment: Mapping[str, str]) -> None:
        self._root = "" if root == "/" else root
        self._library_path = environment.get("LD_LIBRARY_PATH", "")
        self._preload = environment.get("LD_PRELOAD", "").replace(":", " ").split()
        self._cache: dict[str, list[str]] | None = None
        self._found: dict[str, None] = {}

    def run(self, path: str) -> dict[str, None]:
        todo = self._interpreters(path)
        self._found.update(dict.fromkeys((*todo, *CONFIGURATION)))
        for name in self._preload:
            todo += self._candidates(name, path, [])
        inherited: list[str] = []
        while todo and len(self._found) < MOST_FILES:
            file = todo.pop(0)
            self._found[file] = None
            names, paths = self._dynamic(file)
            inherited += [directory for directory in paths if directory not in inherited]
            for name in names:
                todo += [found for found in self._candidates(name, file, inherited) if found not in self._found]
        return self._found

    def _host(self, path: str) -> str:
        return self._root + path

    def _interpreters(self, path: str) -> list[str]:
        """The program, and as long as it is a script its interpreter, and the ELF interpreter of the last."""
        chain = [path]
        for _ in range(MOST_INTERPRETERS):
            head = self._read(chain[-1], 0, 256)
            if head[:2] == b"#!":
                words = head[2:].split(b"\n")[0].split()
                if not words:
                    break
                chain.append(os.fsdecode(words[0]))
                if os.path.basename(chain[-1]) == "env" and len(words) > 1:
                    chain += self._in_path(os.fsdecode(words[-1]))
                continue
            interpreter = self._program_interpreter(chain[-1])
            return [*chain, interpreter] if interpreter else chain
        return chain

    def _in_path(self, name: str) -> list[str]:
        """What env(1) would find."""
        places = [
            os.path.join(d, name) for d in os.environ.get("PATH", "/usr/bin:/bin").split(":") if d.startswith("/")
        ]
        return [place for place in places if os.access(self._host(place), os.X_OK)][:1]

    def _candidates(self, name: str, by: str, paths: list[str]) -> list[str]:
        if "/" in name:
            return [name if name.startswith("/") else os.path.normpath(os.path.join(os.path.dirname(by), name))]
        origin = os.path.dirname(os.path.realpath(self._host(by))).removeprefix(self._root) or "/"
        listed = [*paths, *self._library_path.replace(";", ":").split(":")]
        expanded = [d.replace("$ORIGIN", origin).replace("${ORIGIN}", origin) for d in listed if d]
        places = [os.path.join(directory, name) for directory in (*expanded, *DEFAULT_DIRECTORIES)]
        return [place for place in dict.fromkeys([*places, *self._cached(name)]) if os.path.exists(self._host(place))]

    def _cached(self, name: str) -> list[str]:
        if self._cache is None:
            self._cache = {}
            for key, value in _cache_entries(self._read(CACHE, 0, 16 << 20)):
                self._cache.setdefault(key, []).append(value)
        return self._cache.get(name, [])

    def _read(self, path: str, offset: int, length: int) -> bytes:
        try:
            with FileSource(self._host(path)) as source:
                return source.read(offset, length)
        except NotAnObject:
            return b""

    def _headers(self, path: str) -> list[tuple[int, int, int, int]]:
        """(type, offset, address, file size) of each program header of a 64-bit or 32-bit little-endian ELF file."""
        head = self._read(path, 0, 64)
        if len(head) < 52 or head[:4] != b"\x7fELF" or head[5] != 1 or head[4] not in (1, 2):
            return []
        wide = head[4] == 2
        if wide and len(head) < 64:
            return []
        start = struct.unpack_from("<Q" if wide else "<I", head, 32 if wide else 28)[0]
        size, number = struct.unpack_from("<HH", head, 54 if wide else 42)
        layout = struct.Struct("<IIQQQQ" if wide else "<IIIII")
        if size < layout.size:
            return []
        table = self._read(path, start, min(number, MOST_HEADERS) * size)
        rows = [layout.unpack_from(table, at) for at in range(0, len(table) - layout.size + 1, size)]
        return [(r[0], r[2], r[3], r[5]) if wide else (r[0], r[1], r[2], r[4]) for r in rows]

    def _program_interpreter(self, path: str) -> str:
        for kind, offset, _, size in self._headers(path):
            if kind == PT_INTERP and size <= LONGEST:
                return os.fsdecode(self._read(path, offset, size).split(b"\0")[0])
        return ""

    def _dynamic(self, path: str) -> tuple[list[str], list[str]]:
        """DT_NEEDED's names, and the directories of DT_RPATH and DT_RUNPATH."""
        headers = self._headers(path)
        place = next(((offset, size) for kind, offset, _, size in headers if kind == PT_DYNAMIC), None)
        if place is None:
            return [], []
        layout = struct.Struct("<QQ" if self._read(path, 4, 1) == b"\2" else "<II")
        data = self._read(path, place[0], min(place[1], MOST_TAGS * layout.size))
        tags = list(layout.iter_unpack(data[: len(data) // layout.size * layout.size]))
        address = next((value for tag, value in tags if tag == DT_STRTAB), 0)
        strings = next(
            (
                o + address - start
                for kind, o, start, size in headers
                if kind == PT_LOAD and start <= address < start + size
            ),
            None,
        )
        if strings is None:
            return [], []

        def string(offset: int) -> str:
            return os.fsdecode(self._read(path, strings + offset, LONGEST).split(b"\0")[0])

        names = [string(value) for tag, value in tags if tag == DT_NEEDED][:MOST_FILES]
        paths = [string(value) for tag, value in tags if tag in (DT_RPATH, DT_RUNPATH)]
        return [name for name in names if name], [part for path in paths for part in path.split(":") if part]


def _cache_entries(data: bytes) -> Iterator[tuple[str, str]]:
    """(library, path) of ld.so.cache in its format since glibc 2.2 (dl-cache.h: struct cache_file_new)."""
    base = data.find(_CACHE_MAGIC)
    if base < 0 or len(data) < base + 48:
        return
    count = struct.unpack_from("<I", data, base + 20)[0]
    for number in range(min(count, (len(data) - base - 48) // 24)):
        key, value = struct.unpack_from("<II", data, base + 48 + number * 24 + 4)
        names = [data[base + at : data.find(b"\0", base + at)] for at in (key, value)]
        yield os.fsdecode(names[0]), os.fsdecode(names[1])

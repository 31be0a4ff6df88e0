"""Arguments that a program never asked for: what `verify --hostile` gives beside those of the command line."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from loadstone.linux.exec.stack import MAX_ARG_STRLEN

if TYPE_CHECKING:
    from loadstone.verify.runner import Request

_ALIGNMENT = 16  # of the stack pointer: one argument of each length modulo this


def hostile(request: Request) -> Iterator[Request]:
    """The request itself, then the same file with arguments and environments that strain every rule of the stack."""
    yield request
    name, longest = request.argv[:1] or (b"x",), b"x" * (MAX_ARG_STRLEN - 1)
    rows: tuple[tuple[str, tuple[bytes, ...], tuple[bytes, ...]], ...] = (
        ("empty argv", (), request.envp),
        ("empty argv and environment", (), ()),
        ("empty strings", (b"", b"", b""), (b"", b"")),
        ("1 MiB of arguments", (*name, *[longest] * 8), request.envp),
        ("2,000 arguments and 500 variables", (*name, *[b"argument"] * 2000), (b"V=value",) * 500),
        ("strings about a page long", (b"a" * 4095, b"b" * 4096, b"c" * 4097), (b"d" * 4094,)),
        ("bytes that are not UTF-8", (*name, b"\xff\xfe\x80", bytes(range(1, 256))), (b"\xc3(=\xff",)),
    )
    for label, argv, envp in rows:
        yield replace(request, label=label, argv=argv, envp=envp)
    for length in range(_ALIGNMENT):
        yield replace(request, label=f"one argument of {length} bytes", argv=(b"y" * length,), envp=())

"""`#!` lines, with the verdicts of fs/binfmt_script.c (load_script)."""

from __future__ import annotations

from errno import ENOEXEC

from loadstone.binfmt.plan import ScriptPlan, Source
from loadstone.binfmt.rules import DEFAULT_RULES, FormatRules
from loadstone.errors import LinuxError

_BLANKS = b" \t"


def plan_script(head: bytes, source: Source, rules: FormatRules = DEFAULT_RULES) -> ScriptPlan:
    r"""Plan a script: which interpreter runs instead, with which one argument.

    The line ends at the first newline that no NUL precedes. Without one it fills the whole buffer, whose last byte is
    lost: an argument may be cut there, a path may not. Both end at their first NUL, so either can be empty: a file of
    just `#!/bin/sh ` (a blank, no newline) passes one empty argument.

    Args:
        head: the first `rules.buffer_size` bytes of the file, padded with zeros (`linux_binprm.buf`).
        source: not read; the handlers' common signature.
        rules: what varies between kernels.

    Raises:
        LinuxError: ENOEXEC; without a sentence when the file is no script at all.
    """
    if head[:2] != b"#!":
        raise LinuxError(ENOEXEC)
    end = _end_of_line(head)
    while head[end - 1] in _BLANKS:
        end -= 1
    start = _skip_blanks(head, 2, end)
    if start < 0 or start == end:
        raise LinuxError(ENOEXEC, "the `#!` line names no interpreter")
    line = head[:end] + b"\0"  # the kernel writes a NUL there
    separator = _terminator(head, start, end)
    if separator < 0 or not head[separator]:
        return ScriptPlan(_string(line, start), None)
    argument = _skip_blanks(head, separator, end)
    if argument < 0:
        return ScriptPlan(_string(line, start), None)
    return ScriptPlan(line[start:separator], _string(line, argument))


def _end_of_line(head: bytes) -> int:
    """The index of the newline, or of the buffer's last byte where the line has no end in it."""
    nul = head.find(b"\0")
    newline = head.find(b"\n", 0, len(head) if nul < 0 else nul)
    if newline >= 0:
        return newline
    last = len(head) - 1
    start = _skip_blanks(head, 2, last)
    if start < 0:
        raise LinuxError(ENOEXEC, f"the first {len(head)} bytes of the `#!` line are blank")
    if _terminator(head, start, last) < 0:
        raise LinuxError(ENOEXEC, f"the interpreter's path does not end within the first {len(head)} bytes")
    return last


def _skip_blanks(head: bytes, first: int, last: int) -> int:
    """next_non_spacetab: the first index in [first, last] that holds no blank, or -1."""
    for index in range(first, last + 1):
        if head[index] not in _BLANKS:
            return index
    return -1


def _terminator(head: bytes, first: int, last: int) -> int:
    """next_terminator: the first index in [first, last] that holds a blank or a NUL, or -1."""
    for index in range(first, last + 1):
        if head[index] in b" \t\0":
            return index
    return -1


def _string(line: bytes, start: int) -> bytes:
    """The C string at `start`."""
    return line[start : line.index(b"\0", start)]

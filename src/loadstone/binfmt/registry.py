"""The binary format handlers in the kernel's order, and the search through them (fs/exec.c: search_binary_handler)."""

from __future__ import annotations

from collections.abc import Callable
from errno import ENOEXEC
from typing import Final

from loadstone.binfmt.elf import plan_elf32, plan_elf64
from loadstone.binfmt.plan import Plan, Source
from loadstone.binfmt.rules import DEFAULT_RULES, FormatRules
from loadstone.binfmt.script import plan_script
from loadstone.errors import LinuxError

Handler = Callable[[bytes, Source, FormatRules], Plan]

# How deep interpreters may nest: execve searches a handler for depth 0, 1, ... and fails with ELOOP when the depth
# exceeds this (fs/exec.c: exec_binprm). Five scripts in a row pass, the sixth does not.
MAX_DEPTH: Final = 5

# The order in which fs/Makefile links them. The formats of binfmt_misc come before all of these: see linux/exec/chain.
HANDLERS: Final[tuple[tuple[str, Handler], ...]] = (
    ("load_script", plan_script),
    ("load_elf_binary", plan_elf64),
    ("compat load_elf_binary", plan_elf32),
)


def handlers_of(rules: FormatRules) -> tuple[tuple[str, Handler], ...]:
    """The handlers of a kernel; its a.out handler came first in 32-bit kernels and last in 64-bit ones."""
    if not rules.aout:
        return HANDLERS
    from loadstone.binfmt.aout import plan_aout

    aout = ("load_aout_binary", plan_aout)
    return (*HANDLERS, aout) if rules.x86_64 else (aout, *HANDLERS)


def prepare_binprm(source: Source, rules: FormatRules = DEFAULT_RULES) -> bytes:
    """The first BINPRM_BUF_SIZE bytes of the file, padded with zeros (fs/exec.c: prepare_binprm)."""
    return source.read(0, rules.buffer_size).ljust(rules.buffer_size, b"\0")


def search_binary_handler(
    source: Source,
    rules: FormatRules = DEFAULT_RULES,
    handlers: tuple[tuple[str, Handler], ...] | None = None,
) -> Plan:
    """Ask each handler in turn; the first that does not answer ENOEXEC decides.

    Raises:
        LinuxError: a handler's own error, or ENOEXEC when nobody takes the file, with a sentence on what it looks like.
    """
    head = prepare_binprm(source, rules)
    why = ""
    for _, handler in handlers_of(rules) if handlers is None else handlers:
        try:
            return handler(head, source, rules)
        except LinuxError as error:
            if error.errno != ENOEXEC:
                raise
            why = why or error.why
    if not why:
        from loadstone.binfmt.describe import describe

        why = describe(head, source.size)
    raise LinuxError(ENOEXEC, why)

"""What the handlers made of files whose first page told them everything.

A plan follows from the bytes that its handler read, and from the kernel's rules. So it is kept under those bytes and
not under the file: one that was written, replaced or cut has other bytes, and no kept plan can be out of date.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from loadstone.binfmt.plan import ElfPlan
from loadstone.lean import NamedTuple

if TYPE_CHECKING:
    from loadstone.binfmt.plan import Plan, Source
    from loadstone.binfmt.rules import FormatRules

_PAGE = 4096
_MOST = 256  # plans: the programs of a large build, and a megabyte of their pages


class FirstPage:
    """A file whose first page was read, and is not read again. A `Source`.

    Attributes:
        content: the page; shorter where the file is.
        suffices: nothing but the page was asked for.
    """

    __slots__ = ("_source", "content", "suffices")

    def __init__(self, source: Source) -> None:
        self._source = source
        self.content = source.read(0, _PAGE)
        self.suffices = True

    @property
    def size(self) -> int:
        """Bytes in the file."""
        self.suffices = False
        return self._source.size

    def read(self, offset: int, length: int) -> bytes:
        """At most `length` bytes from `offset`."""
        end = offset + length
        if end <= len(self.content) or len(self.content) < _PAGE:
            return self.content[offset:end]
        self.suffices = False
        return self._source.read(offset, length)


class Taken(NamedTuple):
    """A program that a handler took: which one, what it will do, and those that were asked before."""

    handler: str
    plan: Plan
    refused: tuple[str, ...]


class KnownPlans:
    """The plans of one machine. `rules`: its kernel's, which do not change."""

    __slots__ = ("_interpreters", "_programs", "rules")

    def __init__(self, rules: FormatRules) -> None:
        self.rules = rules
        self._programs: dict[bytes, Taken] = {}
        self._interpreters: dict[tuple[bytes, int], ElfPlan] = {}

    def program(self, page: FirstPage) -> Taken | None:
        """What a handler made of a file that begins with `page`."""
        return self._programs.get(page.content)

    def keep_program(self, page: FirstPage, taken: Taken) -> None:
        """A handler took the file; `page` knows what it read."""
        if page.suffices and not _fails(taken.plan):
            _add(self._programs, page.content, taken)

    def interpreter(self, page: FirstPage, bits: int) -> ElfPlan | None:
        """The plan of a program interpreter that begins with `page`, for a program of `bits` bits."""
        return self._interpreters.get((page.content, bits))

    def keep_interpreter(self, page: FirstPage, bits: int, plan: ElfPlan) -> None:
        """A program interpreter was looked at; `page` knows what was read of it."""
        if page.suffices and not _fails(plan):
            _add(self._interpreters, (page.content, bits), plan)


def _fails(plan: Plan) -> bool:
    """Whether carrying it out ends in an error, which is raised: a new one each time."""
    return isinstance(plan, ElfPlan) and bool(plan.error or any(segment.error for segment in plan.segments))


def _add(plans: dict[Any, Any], key: object, value: object) -> None:
    if len(plans) >= _MOST:
        plans.clear()
    plans[key] = value

"""The images of programs that were executed before, without their strings, to be made again at once.

They are kept under everything that they follow from and that is not asked of the address space itself (see
`memory.prepared`). The first exec of a program only leaves a note, since most programs are executed once; the second
one's image is kept, and the third and all others begin with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadstone.lean import NamedTuple
from loadstone.linux.profile import RLIMIT_STACK
from loadstone.memory.prepared import PreparedSpace, ahead

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from loadstone.binfmt.plan import ElfPlan
    from loadstone.linux.exec.program import Program
    from loadstone.memory.address_space import AddressSpace
    from loadstone.memory.vma import Vma

_MOST = 64


class Places(NamedTuple):
    """Where exec put things: the load biases, the vDSO (0: there is none)."""

    bias: int
    interpreter_bias: int
    vdso: int


class Asked(NamedTuple):
    """What an image follows from. `string_pages`: bytes of the stack, in whole pages, that the strings take."""

    plan: ElfPlan
    program: Program
    interpreter_plan: ElfPlan | None
    interpreter: Program | None
    string_pages: int

    def key(self, space: AddressSpace) -> Hashable:
        """The same for images that are the same. Plans go by identity: there is one for the same bytes."""
        interpreter = (self.interpreter.inode, self.interpreter.path) if self.interpreter is not None else None
        limits = space.limits
        return (
            id(self.plan), self.program.inode, self.program.path, id(self.interpreter_plan), interpreter,
            self.string_pages, space.layout, limits.soft(RLIMIT_STACK), limits.may_map_low, ahead(space),
        )  # fmt: skip


class _Kept(NamedTuple):
    """`asked` keeps the plans alive, by whose identity it is found."""

    asked: Asked
    places: Places
    space: PreparedSpace | None


class PreparedImages:
    """Those of one machine."""

    __slots__ = ("_kept",)

    def __init__(self) -> None:
        self._kept: dict[Hashable, _Kept] = {}

    def fill(self, space: AddressSpace, asked: Asked) -> Places | None:
        """Make the image in `space`, which is empty; None, with nothing done, if there is none that fits."""
        kept = self._kept.get(asked.key(space))
        if kept is None or kept.space is None or not kept.space.fits(space):
            return None
        kept.space.fill(space)
        return kept.places

    def keep(self, space: AddressSpace, asked: Asked, places: Places, stack: Vma, cleared: Sequence[int]) -> None:
        """An exec made this image step by step. `cleared`: see `PreparedSpace.of`."""
        key = asked.key(space)
        if len(self._kept) >= _MOST:
            self._kept.clear()
        prepared = PreparedSpace.of(space, stack, cleared) if key in self._kept else None
        self._kept[key] = _Kept(asked, places, prepared)

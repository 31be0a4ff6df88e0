"""An ELF file's segments as the mappings that they become, so that they can be placed at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadstone.memory.outline import Area, Outline
from loadstone.memory.vma import ACCOUNT, MAYEXEC, MAYREAD, MAYWRITE, PAGE, PAGE_MASK, WRITE

if TYPE_CHECKING:
    from loadstone.binfmt.plan import Segment

_MAY = MAYREAD | MAYWRITE | MAYEXEC


def outline_of(segments: list[Segment]) -> Outline | None:
    """The mappings of a file's PT_LOAD segments; None where what is left may depend on how they were made one by one.

    That is so where one fails, lies over another, might merge with another or has nothing of the file, where the first
    one's reservation promises memory, and where two have a tail to clear, which touches their pages.
    """
    areas: list[Area] = []
    for segment in segments:
        start, flags = segment.start, _flags(segment.prot)
        if segment.error or not segment.file_length:
            return None
        if areas and (start < areas[-1].end or (start == areas[-1].end and flags == areas[-1].flags)):
            return None
        areas.append(Area(start, start + segment.file_length + PAGE - 1 & PAGE_MASK, flags, segment.file_offset, False))
        if segment.anonymous_end > segment.anonymous_start:
            flags = _flags(segment.anonymous_prot)
            areas.append(Area(segment.anonymous_start, segment.anonymous_end, flags, 0, True))
    cleared = sum(segment.clear_end > segment.clear_start for segment in segments)
    return Outline(areas) if areas and cleared < 2 and not areas[0].flags & WRITE else None


def _flags(prot: int) -> int:
    return prot | _MAY | (ACCOUNT if prot & WRITE else 0)

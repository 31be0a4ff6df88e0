"""Two sequences side by side: what they have in common, in order, and what it takes to turn one into the other.

The edit distance counts insertions and deletions: it is the least there is (Myers, "An O(ND) Difference Algorithm and
Its Variations", 1986), as long as it is not more than `MOST_EDITS`; beyond, difflib finds an upper bound.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import NamedTuple

MOST_EDITS = 1_000

Range = tuple[int, int]


class Hunk(NamedTuple):
    """A place where the two differ: [first, end) of each, one of which may be empty."""

    left: Range
    right: Range


class Alignment(NamedTuple):
    """How two sequences lie beside each other.

    Attributes:
        lengths: of the two. prefix: how many elements are the same before the first difference.
        matched: elements that both have, in the same order. hunks: the rest. exact: whether `matched` is the most
            there can be.
    """

    lengths: tuple[int, int]
    prefix: int
    matched: int
    hunks: tuple[Hunk, ...]
    exact: bool

    @property
    def distance(self) -> int:
        """Insertions and deletions."""
        return sum(self.lengths) - 2 * self.matched

    @property
    def agreement(self) -> float:
        """What is common to both, as a share of both together; 1.0: identical."""
        return 2 * self.matched / sum(self.lengths) if sum(self.lengths) else 1.0


def align(left: Sequence[Hashable], right: Sequence[Hashable]) -> Alignment:
    """Align two sequences."""
    lengths = len(left), len(right)
    prefix = _common(left, right)
    end = _common(left[prefix:][::-1], right[prefix:][::-1])
    left, right = left[prefix : len(left) - end], right[prefix : len(right) - end]
    pairs = _shortest(left, right)
    exact = pairs is not None
    if pairs is None:
        pairs = _approximate(left, right)
    shifted = [(i + prefix, j + prefix) for i, j in pairs]
    hunks = _gaps(shifted, prefix, (lengths[0] - end, lengths[1] - end))
    return Alignment(lengths, prefix, prefix + len(pairs) + end, tuple(hunks), exact)


def _common(left: Sequence[Hashable], right: Sequence[Hashable]) -> int:
    """The length of the common prefix."""
    for number, (a, b) in enumerate(zip(left, right, strict=False)):
        if a != b:
            return number
    return min(len(left), len(right))


def _shortest(left: Sequence[Hashable], right: Sequence[Hashable]) -> list[Range] | None:
    """The pairs (i, j) of a longest common subsequence; None if it takes more than MOST_EDITS.

    `furthest[k]` is how far in `left` one gets on diagonal k = i - j with the edits so far.
    """
    n, m = len(left), len(right)
    furthest = {1: 0}
    history: list[dict[int, int]] = []
    for edits in range(min(n + m, MOST_EDITS) + 1):
        history.append(dict(furthest))
        for k in range(-edits, edits + 1, 2):
            down = k == -edits or (k != edits and furthest[k - 1] < furthest[k + 1])
            i = furthest[k + 1] if down else furthest[k - 1] + 1
            j = i - k
            while i < n and j < m and left[i] == right[j]:
                i += 1
                j += 1
            furthest[k] = i
            if i >= n and j >= m:
                return _trace_back(history, n, m)
    return None


def _trace_back(history: list[dict[int, int]], i: int, j: int) -> list[Range]:
    """The pairs on the way that `history` remembers, from its end to its start."""
    pairs = []
    for edits in range(len(history) - 1, -1, -1):
        furthest, k = history[edits], i - j
        down = k == -edits or (k != edits and furthest[k - 1] < furthest[k + 1])
        before = k + 1 if down else k - 1
        from_i = furthest[before] if edits else 0
        from_j = from_i - before if edits else 0
        while i > from_i and j > from_j:
            i -= 1
            j -= 1
            pairs.append((i, j))
        i, j = from_i, from_j
    return pairs[::-1]


def _approximate(left: Sequence[Hashable], right: Sequence[Hashable]) -> list[Range]:
    """A common subsequence, not always a longest one."""
    from difflib import SequenceMatcher

    blocks = SequenceMatcher(None, left, right, autojunk=False).get_matching_blocks()
    return [(block.a + n, block.b + n) for block in blocks for n in range(block.size)]


def _gaps(pairs: list[Range], start: int, ends: Range) -> list[Hunk]:
    """What lies between matched pairs."""
    found = []
    i = j = start
    for next_i, next_j in [*pairs, ends]:
        if next_i > i or next_j > j:
            found.append(Hunk((i, next_i), (j, next_j)))
        i, j = next_i + 1, next_j + 1
    return found

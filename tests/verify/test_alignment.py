"""Two sequences side by side, against the textbook's table of longest common subsequences."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from loadstone.verify import alignment
from loadstone.verify.alignment import Alignment, align

short = st.lists(st.integers(0, 5), max_size=30)


def longest_common(left: Sequence[int], right: Sequence[int]) -> int:
    table = [[0] * (len(right) + 1) for _ in range(len(left) + 1)]
    for i, a in enumerate(left):
        for j, b in enumerate(right):
            table[i + 1][j + 1] = table[i][j] + 1 if a == b else max(table[i][j + 1], table[i + 1][j])
    return table[-1][-1]


def outside_hunks(found: Alignment, sequence: Sequence[int], side: int) -> list[int]:
    kept, at = [], 0
    for hunk in found.hunks:
        first, end = hunk[side]
        kept += sequence[at:first]
        at = end
    return [*kept, *sequence[at:]]


@given(short, short)
def test_the_distance_is_the_least(left: list[int], right: list[int]) -> None:
    found = align(left, right)
    assert found.exact
    assert found.matched == longest_common(left, right)
    assert found.distance == len(left) + len(right) - 2 * found.matched


@given(short, short)
def test_what_is_outside_the_hunks_is_the_same(left: list[int], right: list[int]) -> None:
    found = align(left, right)
    assert outside_hunks(found, left, 0) == outside_hunks(found, right, 1)
    assert left[: found.prefix] == right[: found.prefix]
    assert found.prefix in (len(left), len(right)) or left[found.prefix] != right[found.prefix]


def test_the_same_is_identical() -> None:
    found = align("abc", "abc")
    assert (found.distance, found.agreement, found.prefix, found.hunks) == (0, 1.0, 3, ())


def test_nothing_is_like_nothing() -> None:
    assert align("", "").agreement == 1.0


def test_many_differences_give_a_bound() -> None:
    left = list(range(2 * alignment.MOST_EDITS))
    right = [-1 - number for number in left[: alignment.MOST_EDITS]] + left[alignment.MOST_EDITS :]
    found = align([7000, *left, 9000], [8000, *right, 9001])
    assert not found.exact
    assert found.matched == alignment.MOST_EDITS

"""Descriptors: which number a program gets, compared with the host's kernel, and what looking for it costs."""

from __future__ import annotations

from typing import cast

import pytest

from loadstone.vfs.file import OpenFile
from loadstone.vfs.file_table import FileTable
from support.run import same

# Takes, gives back and replaces descriptors as the random numbers of a seed say; prints every number it gets.
RANDOM_DESCRIPTORS = """
import fcntl, os, random, sys
choose = random.Random(int(sys.argv[1]))
taken = []
for _ in range(400):
    what = choose.random()
    if what < 0.5 or not taken:
        taken.append(os.dup(0))
    elif what < 0.6:
        taken.append(fcntl.fcntl(0, fcntl.F_DUPFD, choose.randrange(80)))
    elif what < 0.7:
        new = choose.randrange(20, 80)
        os.dup2(0, new)
        if new not in taken:
            taken.append(new)
    else:
        os.close(taken.pop(choose.randrange(len(taken))))
        continue
    print(taken[-1])
"""


class Compared:
    """Stands for an open file, and counts how often it is compared with something."""

    comparisons = 0

    def __eq__(self, other: object) -> bool:
        Compared.comparisons += 1
        return self is other

    def hold(self) -> None:
        """A descriptor more."""


@pytest.mark.parametrize("seed", range(3))
def test_random_descriptors_are_those_of_the_host(seed: int) -> None:
    same("python3", "-c", RANDOM_DESCRIPTORS, str(seed))


def test_taken_numbers_are_not_searched_again() -> None:
    table = FileTable(limit=4096)
    Compared.comparisons = 0
    for fd in range(1000):
        assert table.install(cast(OpenFile, Compared())) == fd
    assert Compared.comparisons < 1000

"""Tables that name system calls by number: one data file an instruction set (`x86_64.tbl`)."""

from __future__ import annotations


class Abi:
    """The system calls of one instruction set.

    `names` maps every number to its name, implemented or not; `numbers` is the inverse.
    """

    __slots__ = ("isa", "names", "numbers")

    def __init__(self, isa: str, names: dict[int, str]) -> None:
        self.isa = isa
        self.names = names
        self.numbers = {name: number for number, name in names.items()}

    def name(self, number: int) -> str:
        """The call's name, or `syscall_0x…` as strace shows a number that the table does not have."""
        return self.names.get(number) or f"syscall_{number:#x}"


def load(isa: str = "x86_64") -> Abi:
    """Read the table of `isa`, the name of a `.tbl` file beside this module. Takes about 0.1 ms."""
    with open(f"{__path__[0]}/{isa}.tbl", encoding="ascii") as file:
        words = [line.split() for line in file.read().splitlines() if line[0] != "#"]
    return Abi(isa, {int(number): name for number, name in words})

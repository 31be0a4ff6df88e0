"""Tables that name system calls by number: one data file an instruction set (`x86_64.tbl`)."""

from __future__ import annotations

from functools import cache


class Abi:
    """The system calls of one instruction set.

    `names` maps every number to its name, implemented or not.
    """

    __slots__ = ("isa", "names")

    def __init__(self, isa: str, names: dict[int, str]) -> None:
        self.isa = isa
        self.names = names

    @property
    def numbers(self) -> dict[str, int]:
        """The inverse of `names`, made anew."""
        return {name: number for number, name in self.names.items()}

    def name(self, number: int) -> str:
        """The call's name, or `syscall_0x…` as strace shows a number that the table does not have."""
        return self.names.get(number) or f"syscall_{number:#x}"


@cache
def load(isa: str = "x86_64") -> Abi:
    """Read the table of `isa`, the name of a `.tbl` file beside this module; once."""
    with open(f"{__path__[0]}/{isa}.tbl", encoding="ascii") as file:
        text = file.read()
    while text.startswith("#"):
        text = text.partition("\n")[2]
    words = text.split()
    return Abi(isa, dict(zip(map(int, words[0::2]), words[1::2], strict=True)))

"""Fixtures for comparing an AddressSpace with the kernel."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from loadstone.memory.address_space import AddressSpace
from memory.twin import Op, compare
from support.compilers import Compiler

Twin = Callable[..., AddressSpace]


@pytest.fixture(scope="session")
def mapper(compiled: Compiler) -> str:
    """The native side."""
    return compiled(Path(__file__).with_name("mapper.c").read_text(), "static")


@pytest.fixture
def twin(mapper: str) -> Twin:
    """`twin(operations, files)`: an operation is a tuple of a name and numbers."""

    def run(operations: list[tuple[object, ...]], files: tuple[str, ...] = (), *, legacy: bool = False) -> AddressSpace:
        made = [Op(str(name), tuple(int(str(n)) for n in numbers)) for name, *numbers in operations]
        return compare(mapper, made, files, legacy=legacy)

    return run


@pytest.fixture
def data_file(tmp_path: Path) -> str:
    """A file of 6 MiB + 100 bytes."""
    path = tmp_path / "data"
    path.write_bytes(bytes(range(256)) * (6 << 12) + bytes(100))
    return str(path)

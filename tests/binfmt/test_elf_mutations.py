"""Mutants: a sound file with a few fields changed gets the kernel's verdict, and the kernel's image."""

from __future__ import annotations

import os
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from loadstone.binfmt.elf import gnu_properties, plan_interpreter
from loadstone.binfmt.plan import ElfPlan
from loadstone.binfmt.registry import search_binary_handler
from loadstone.binfmt.rules import FormatRules
from loadstone.binfmt.source import BytesSource
from loadstone.errors import LinuxError
from support import elfbuilder as eb
from support.elf_oracle import compare

VALUES = [
    0, 1, 2, 3, 4, 6, 7, 16, 52, 55, 56, 57, 62, 64, 183, 0x233, 0x234, 0x235, 0x7FF, 0x800, 0xFFF, 0x1000, 0x1001,
    0x1100,
    0x1FFF, 0x2000, 0x2100, 0x3000, 0x3001, 0x3210, 0x10000, 0x200000, 0x400000, 0x8048000, 0x7FFFFFFF, 0x80000000,
    0xC0000000, 0xFFFFDFFF, 0xFFFFE000, 0xFFFFF000, 0xFFFFFFFF, 1 << 32, 1 << 40, 0x555555554000, 0x7FFFFFFFE000,
    0x7FFFFFFFF000, 0x800000000000, 0x7FFFFFFFFFFFF000, 0x7FFFFFFFFFFFFFFF, 1 << 63, (1 << 64) - 0x1000, (1 << 64) - 1,
    0x6474E550, 0x6474E551, 0x6474E553,
]  # fmt: skip


class Bases:
    """The sound files that mutants come from, and a place to write them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        for bits in (64, 32):
            self.write(f"loader{bits}", eb.loader(bits))

    def write(self, name: str, data: bytes) -> str:
        path = self.directory / name
        path.write_bytes(data)
        path.chmod(0o755)
        return str(path)

    def base(self, kind: str, bits: int) -> bytes:
        if kind == "static":
            return eb.static(bits)
        return eb.loader(bits) if kind == "loader" else eb.dynamic(os.fsencode(self.directory / f"loader{bits}"), bits)

    def check(self, kind: str, bits: int, mutant: bytes) -> str:
        """Compare a mutant: run as it is, or (`interpreter`) as what a sound program names."""
        if kind != "interpreter":
            return compare(self.write("mutant", mutant))
        path = self.write("mutant", mutant)
        return compare(self.write("program", eb.dynamic(os.fsencode(path), bits)))


@pytest.fixture(scope="module")
def bases() -> Iterator[Bases]:
    with tempfile.TemporaryDirectory(prefix="mutants") as name:
        yield Bases(Path(name))


def fields_of(bits: int) -> list[tuple[int, int]]:
    """(offset, size) of every field of the ELF header and of three program headers."""
    header, entry = (
        (eb.HEADER_FIELDS_64, eb.ENTRY_FIELDS_64) if bits == 64 else (eb.HEADER_FIELDS_32, eb.ENTRY_FIELDS_32)
    )
    found = list(header.values())
    for number in range(4):
        start = eb.entry_offset(number, bits)
        found += [(start + offset, size) for offset, size in entry.values()]
    return found


KINDS = ["static", "dynamic", "loader", "interpreter"]


@st.composite
def mutations(draw: st.DrawFn) -> tuple[str, int, list[tuple[int, int, int]], int]:
    bits = draw(st.sampled_from([64, 64, 32]))
    kind = draw(st.sampled_from(KINDS))
    field = st.sampled_from(fields_of(bits))
    change = st.tuples(field, st.one_of(st.sampled_from(VALUES), st.integers(0, (1 << 64) - 1)))
    changes = [(offset, size, value) for (offset, size), value in draw(st.lists(change, min_size=1, max_size=3))]
    cut = draw(st.one_of(st.just(0x3000), st.just(0x3000), st.integers(0, 0x3000)))
    return kind, bits, changes, cut


@settings(max_examples=300, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None)
@given(mutation=mutations())
def test_mutants_get_the_kernels_verdict(
    bases: Bases, mutation: tuple[str, int, list[tuple[int, int, int]], int]
) -> None:
    kind, bits, changes, cut = mutation
    data = bases.base("loader" if kind == "interpreter" else kind, bits)
    for offset, size, value in changes:
        data = eb.patch(data, offset, size, value)
    bases.check(kind, bits, data[:cut])


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_many_mutants(bases: Bases, seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(1000):
        bits, kind = chance.choice((64, 32)), chance.choice(KINDS)
        data = bases.base("loader" if kind == "interpreter" else kind, bits)
        for _ in range(chance.choice((1, 1, 2, 3))):
            offset, size = chance.choice(fields_of(bits))
            old = int.from_bytes(data[offset : offset + size], "little")
            value = chance.choice((*VALUES, old + 1, old - 1, old + 0x1000, old ^ 1 << chance.randrange(8 * size)))
            data = eb.patch(data, offset, size, value)
        try:
            bases.check(kind, bits, data)
        except AssertionError as error:
            raise AssertionError(f"{kind} {bits}: {data[:0x180].hex()}: {error}") from error


class Counting(BytesSource):
    """Counts what a handler reads."""

    __slots__ = ("asked",)

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.asked = 0

    def read(self, offset: int, length: int) -> bytes:
        assert 0 <= offset < 1 << 63
        assert 0 <= length <= 65536
        self.asked += length
        return super().read(offset, length)


def plan_all(data: bytes) -> None:
    """Everything a handler can do with these bytes; only LinuxError may come out, and little may be read."""
    source = Counting(data)
    for rules in (FormatRules(), FormatRules(gnu_property=True, ia32=False)):
        try:
            plan = search_binary_handler(source, rules)
            if isinstance(plan, ElfPlan):
                gnu_properties(source, plan)
                plan_interpreter(source, plan, rules)
        except LinuxError as error:
            assert error.why
    assert source.asked <= 8 * 65536


@settings(max_examples=400, deadline=None, derandomize=True, database=None)
@given(
    st.one_of(
        st.binary(max_size=300),
        st.binary(max_size=300).map(lambda tail: b"#!" + tail),
        st.binary(max_size=600).map(lambda tail: b"\x7fELF" + tail),
        st.binary(max_size=600).map(lambda tail: eb.static()[:64] + tail),
        st.binary(max_size=600).map(lambda tail: eb.static(32)[:52] + tail),
        st.tuples(st.binary(max_size=64), st.integers(0, 300)).map(
            lambda change: eb.dynamic(b"/x")[: change[1]] + change[0] + eb.dynamic(b"/x")[change[1] + len(change[0]) :]
        ),
    )
)
def test_any_bytes_give_a_plan_or_a_typed_error(data: bytes) -> None:
    plan_all(data)


@pytest.mark.slow
def test_any_bytes_give_a_plan_or_a_typed_error_at_length() -> None:
    chance = random.Random(1)
    for _ in range(100_000):
        data = bytearray(eb.dynamic(b"/x", chance.choice((64, 32)))[:0x400])
        for _ in range(chance.randrange(20)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        plan_all(bytes(data))

"""The registry of reasons: every thing in an image has one, and `explain --why` tells it."""

from __future__ import annotations

import io
import re

import pytest

from loadstone.api import explain
from loadstone.linux.exec import auxv, origins
from loadstone.report.why import write_why
from support.compilers import Compiler

HELLO = '#include <stdio.h>\nchar zeros[9000];\nint main(void) { puts("hello"); return zeros[3]; }\n'


def test_each_class_names_a_function_and_a_file_of_the_kernel() -> None:
    everything = origins.all_origins()
    assert len({(origin.kind, origin.name) for origin in everything}) == len(everything) > 50
    for origin in everything:
        assert re.fullmatch(r"[A-Za-z_0-9]+", origin.function)
        assert re.fullmatch(r"(fs|mm|arch/x86|security)/[a-z0-9_/]+\.[ch]", origin.file)
        assert origin.rule and not origin.rule.endswith(".")


def test_every_known_auxiliary_vector_entry_of_x86_has_a_reason() -> None:
    for key in (*range(3, 10), *range(11, 18), 23, 25, 26, 27, 28, 31, 32, 33, 51):
        assert origins.of_auxv(auxv.name(key)) in origins.all_origins()
    assert "does not know" in origins.of_auxv("AT_4242").rule


@pytest.mark.parametrize("variant", ["pie", "static", "static-pie"])
def test_everything_in_an_image_is_told(compiled: Compiler, variant: str) -> None:
    image = explain(compiled(HELLO, variant), ["program", "argument"], ["A=1"])
    stream = io.StringIO()
    write_why(image, stream, 110)
    text = stream.getvalue()
    for mapping in image.maps:
        made = origins.of_mapping(mapping.path, image.program, image.interpreter_file)
        assert made in origins.all_origins() and f"{made.name}: {made.function} ({made.file})" in text
    for word in image.layout:
        assert origins.of_word(word.what) in (*origins.all_origins(),)
    for key, value in image.auxv:
        assert f"{auxv.name(key)} {value:#x}" in text
    for name in image.registers:
        assert origins.of_register(name).function in text
    assert f"{image.brk:#x}" in text


def test_program_and_interpreter_are_told_apart() -> None:
    image = explain("/bin/true")
    kinds = [origins.of_mapping(line.path, image.program, image.interpreter_file).name for line in image.maps]
    assert kinds.count("program") >= 2 and kinds.count("interpreter") >= 2

"""userfaultfd: the same messages, errors and pages as natively, for the program's touches and for the kernel's."""

from __future__ import annotations

import pytest

from support.c_programs import source_of
from support.compilers import Compiler
from support.run import loadstone, native


@pytest.mark.parametrize("options", [(), ("--fill-ahead", "off"), ("--trace", "syscall")])
def test_userfaultfd_gives_what_the_kernel_gives(options: tuple[str, ...], compiled: Compiler) -> None:
    program = compiled(source_of("userfault"), "pie")
    wanted = native(program)
    if "api EPERM" in wanted.text or wanted.status:
        pytest.skip("the host refuses userfaultfd")
    got = loadstone("run", *options, "--", program)
    assert got.stdout == wanted.stdout
    assert len(wanted.text.splitlines()) > 80

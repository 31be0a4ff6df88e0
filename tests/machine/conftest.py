"""A bare core for each test that wants one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from loadstone.machine import native_code
from machine.bare import Bare


@pytest.fixture
def bare() -> Iterator[Bare]:
    if not native_code.supported():
        pytest.skip("the Unicorn core needs an x86-64 host")
    made = Bare()
    yield made
    made.close()

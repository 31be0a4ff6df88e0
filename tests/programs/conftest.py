"""The data that programs read."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from pathlib import Path

import pytest

from support.data import write_data


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Programs here are the host's own: they need the host that the machine models."""
    if sys.platform == "linux" and platform.machine() == "x86_64":
        return
    reason = f"the programs of this host are {sys.platform} {platform.machine()}, not Linux x86-64"
    for item in items:
        if "programs" in item.path.parts:
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of text, tables, bytes and a small tree; nothing may be written there."""
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture
def find_program() -> object:
    """`find_program(name)`: its path on this host; skips the test where it is not installed."""

    def find(name: str) -> str:
        path = shutil.which(name, path="/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin")
        if path is None:
            pytest.skip(f"{name} is not installed")
        return os.path.join(os.path.dirname(path), name)

    return find

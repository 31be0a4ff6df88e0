"""Extended attributes of the host's files: seen, changed in memory only, or handed over with `--rw`."""

from __future__ import annotations

import os
from collections.abc import Callable
from errno import ENODATA, EOPNOTSUPP, EPERM
from pathlib import Path

import pytest

from loadstone.errors import LinuxError
from loadstone.vfs import extended
from loadstone.vfs.assemble import assemble
from loadstone.vfs.inode import ROOT, Credentials


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """A directory of the host with attributes on a file and on itself."""
    for where in ("out", "rw"):
        (tmp_path / where).mkdir()
        (tmp_path / where / "file").write_text("text")
        try:
            os.setxattr(tmp_path / where / "file", "user.a", b"host's")
            os.setxattr(tmp_path / where, "user.d", b"directory's")
        except OSError as error:
            pytest.skip(f"the file system of {tmp_path} has no extended attributes: {error}")
    return tmp_path


def error(action: Callable[[], object]) -> int:
    with pytest.raises(LinuxError) as raised:
        action()
    return raised.value.errno


def test_the_hosts_show_and_stay_as_they_are(host: Path) -> None:
    vfs = assemble(None)
    file, directory = vfs.stat(str(host / "out/file")), vfs.stat(str(host / "out"))
    assert extended.names(file, ROOT) == ["user.a"]
    assert extended.get(directory, "user.d", ROOT) == b"directory's"
    extended.put(file, "user.b", b"ours", 0, ROOT)
    extended.put(file, "user.a", b"changed", extended.REPLACE, ROOT)
    assert sorted(extended.names(vfs.stat(str(host / "out/file")), ROOT)) == ["user.a", "user.b"]
    assert extended.get(file, "user.a", ROOT) == b"changed"
    extended.remove(file, "user.a", ROOT)
    assert error(lambda: extended.get(file, "user.a", ROOT)) == ENODATA
    assert os.listxattr(host / "out/file") == ["user.a"]
    assert os.getxattr(host / "out/file", "user.a") == b"host's"


def test_what_was_handed_over_is_changed(host: Path) -> None:
    vfs = assemble(None, rw=[str(host / "rw")])
    file = vfs.stat(str(host / "rw/file"))
    extended.put(file, "user.b", b"kept", extended.CREATE, ROOT)
    extended.remove(file, "user.a", ROOT)
    assert extended.names(file, ROOT) == os.listxattr(host / "rw/file") == ["user.b"]
    assert error(lambda: extended.put(file, "security.x", b"", 0, ROOT)) == EOPNOTSUPP


def test_what_is_for_root(host: Path) -> None:
    vfs = assemble(None)
    file = vfs.stat(str(host / "out/file"))
    other = Credentials(1234, 1234)
    assert error(lambda: extended.put(file, "trusted.x", b"", 0, other)) == EPERM
    extended.put(file, "trusted.x", b"secret", 0, ROOT)
    assert error(lambda: extended.get(file, "trusted.x", other)) == ENODATA
    assert extended.names(file, other) == ["user.a"]
    assert extended.get(file, "trusted.x", ROOT) == b"secret"

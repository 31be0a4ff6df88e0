"""Programs executed by way of binfmt_misc: the whole image against the real kernel's, flag by flag."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from loadstone.binfmt.misc import MiscFormats
from loadstone.errors import LinuxError
from loadstone.linux.exec.execve import Setting, execve
from loadstone.linux.exec.program import Program
from loadstone.linux.profile import RLIM_INFINITY
from support.exec_world import HostWorld
from support.misc_kernel import MiscKernel
from support.run import loadstone, native

ENVIRONMENT = [b"HOME=/home/user"]


@pytest.fixture(scope="module")
def kernel() -> Iterator[MiscKernel]:
    made = MiscKernel()
    yield made
    made.close()


@pytest.fixture
def world() -> Iterator[HostWorld]:
    here = HostWorld()
    yield here
    here.close()


class Both:
    """The same formats registered here and there."""

    def __init__(self, kernel: MiscKernel, world: HostWorld, *registrations: bytes) -> None:
        self._kernel, self._world = kernel, world
        self._formats = MiscFormats(256)
        kernel.write(b"status", b"-1")
        for text in registrations:
            assert kernel.register(text)[0] == "ok"
            self._formats.register(text, self._open)

    def _open(self, path: bytes) -> Program:
        name = os.fsdecode(path)
        return Program(self._world.open_program(name), name, self._world.who)

    def same(self, path: str, *argv: bytes) -> str:
        """Execute on both; `ok` or the errno, which is the same."""
        native = self._kernel.image(path, list(argv), ENVIRONMENT)
        soft = {number: limit[0] for number, limit in self._world.rlimits.items()}
        try:
            image = execve(
                self._world, path, argv, ENVIRONMENT, self._world.who,
                limits=lambda number: soft.get(number, RLIM_INFINITY), setting=Setting(self._formats),
            )  # fmt: skip
        except LinuxError as error:
            assert error.name == native
            return error.name
        assert isinstance(native, dict), f"the kernel says {native}"
        expected = [(key, value) for key, value in native["auxv"] if not 11 <= key <= 14]  # root of another namespace
        assert [(key, value) for key, value in image.auxv if not 11 <= key <= 14] == expected
        assert image.space.render_maps() == native["maps"]
        assert image.pointer == native["sp"]
        assert image.name == native["name"]
        ours, theirs = image.stack.bytes, bytes.fromhex(native["stack"])
        start = image.stack.argument_start - image.pointer
        assert ours[start:] == theirs[start:]
        assert (
            ours[: 8 * (image.stack.arguments.argument_count + 1)]
            == theirs[: 8 * (image.stack.arguments.argument_count + 1)]
        )
        return "ok"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory that a process of another user namespace can see, with files to execute."""
    for directory in (tmp_path, *tmp_path.parents):
        if directory.stat().st_uid == os.geteuid() and directory != Path("/tmp"):
            directory.chmod(0o755)
    for name, data in {
        "file.ext": b"text\n",
        "magic": b"....\xca\xfe\xba\xbe",
        "script": b"#!%s/file.ext argument\n" % os.fsencode(tmp_path),
        "interpreter.sh": b"#!/bin/sh -e\n",
        "loop.loop": b"",
    }.items():
        (tmp_path / name).write_bytes(data)
        (tmp_path / name).chmod(0o755)
    return tmp_path


@pytest.mark.parametrize("flags", ["", "P", "O", "C", "F", "PO", "POCF", "OF"])
@pytest.mark.parametrize("interpreter", ["/bin/true", "interpreter.sh"])
def test_flags(kernel: MiscKernel, world: HostWorld, place: Path, flags: str, interpreter: str) -> None:
    command = os.path.join(place, interpreter)
    both = Both(
        kernel, world,
        f":e:E::ext::{command}:{flags}".encode(),
        f":m:M:4:\\xca\\xfe\\xb0\\xbe:\\xff\\xff\\xf0\\xff:{command}:{flags}".encode(),
    )  # fmt: skip
    # The file can be passed to a program only: a script's interpreter would need the script passed too.
    verdict = "ENOEXEC" if interpreter != "/bin/true" and ("O" in flags or "C" in flags) else "ok"
    assert both.same(f"{place}/file.ext", b"own name", b"1") == verdict
    assert both.same(f"{place}/magic", b"", b"1") == verdict
    assert both.same(f"{place}/magic") == verdict
    assert both.same(f"{place}/script", b"zero", b"x") == verdict


def test_the_last_one_registered_is_asked_first(kernel: MiscKernel, world: HostWorld, place: Path) -> None:
    both = Both(kernel, world, b":one:E::ext::/bin/false:", b":two:E::ext::/bin/true:")
    assert both.same(f"{place}/file.ext", b"x") == "ok"


def test_errors(kernel: MiscKernel, world: HostWorld, place: Path) -> None:
    loop = os.fsencode(place / "loop.loop")
    both = Both(
        kernel, world,
        b":missing:E::ext::/nowhere/at/all:",
        b":loop:E::loop::" + loop + b":P",
        b":twice:M::....:" + b":" + os.fsencode(place / "file.ext") + b":O",
    )  # fmt: skip
    assert both.same(f"{place}/file.ext", b"x") == "ENOENT"
    assert both.same(f"{place}/loop.loop", b"x") == "ELOOP"
    assert both.same(f"{place}/magic", b"x") == "ENOENT"


def test_only_one_file_is_passed(kernel: MiscKernel, world: HostWorld, place: Path) -> None:
    (place / "second.ext").write_bytes(b"....")
    (place / "second.ext").chmod(0o755)
    both = Both(
        kernel, world,
        b":outer:M:4:\\xca:" + b":" + os.fsencode(place / "second.ext") + b":O",
        b":inner:E::ext::/bin/true:O",
    )  # fmt: skip
    assert both.same(f"{place}/magic", b"x") == "ENOEXEC"


def test_the_path_decides_the_extension(kernel: MiscKernel, world: HostWorld, place: Path) -> None:
    (place / "dir.ext").mkdir()
    plain = place / "dir.ext" / "plain"
    plain.write_bytes(b"#!/bin/true\n")
    plain.chmod(0o755)
    both = Both(kernel, world, b":e:E::ext::/bin/false:")
    assert both.same(str(plain), b"x") == "ok"
    assert both.same(f"{place}/file.ext/", b"x") == "ENOTDIR"


REPLACED = """
cp /bin/echo interpreter
for flags in "" F O OF; do
  echo ":e$flags:E::ext$flags::$PWD/interpreter:$flags" > /proc/sys/fs/binfmt_misc/register
  printf text > "file.ext$flags"
  chmod 755 "file.ext$flags"
done
mv interpreter elsewhere
printf '#!/bin/cat\n' > interpreter
chmod 755 interpreter
for flags in "" F O OF; do ./file.ext$flags x; echo " status $?"; done
rm interpreter elsewhere
for flags in "" F O OF; do ./file.ext$flags x 2> /dev/null; echo " status $?"; done
rm -f file.ext*
"""


@pytest.mark.usefixtures("kernel")
def test_an_interpreter_opened_when_it_is_registered(tmp_path: Path) -> None:
    """Flag F: what becomes of its name afterwards does not matter. Registered and replaced by the program itself."""
    mount = "mount -t binfmt_misc none /proc/sys/fs/binfmt_misc && "
    line = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount + REPLACED]
    wanted, got = native(*line, cwd=tmp_path), loadstone("run", "/bin/sh", "-c", REPLACED, cwd=tmp_path)
    assert wanted.status == 0, wanted.errors
    assert (got.text, got.status) == (wanted.text, wanted.status), got.errors

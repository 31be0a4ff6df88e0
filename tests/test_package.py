"""What `pip install .` gives a user who has no checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parent.parent
DATA = ("loadstone/machine/hooks.s", "loadstone/linux/abi/x86_64.tbl", "loadstone/py.typed")


def call(*words: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a command away from the checkout; skips where packages cannot be fetched."""
    keep = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        [str(word) for word in words], capture_output=True, text=True, env={**keep, **env}, cwd="/", check=False
    )
    if done.returncode and ("No matching distribution" in done.stderr or "connection" in done.stderr.lower()):
        pytest.skip("no package index is reachable from here")
    return done


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that pip builds of the checkout."""
    directory = tmp_path_factory.mktemp("wheel")
    done = call(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", directory, CHECKOUT)
    assert done.returncode == 0, done.stderr
    return next(directory.glob("loadstone-*.whl"))


@pytest.mark.slow
def test_the_wheel_has_every_file_of_the_package(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert set(DATA) <= names
    source = CHECKOUT / "src"
    wanted = {str(path.relative_to(source)) for path in (source / "loadstone").rglob("*") if path.is_file()}
    wanted = {name for name in wanted if "__pycache__" not in name}
    assert {name for name in names if name.startswith("loadstone/")} == wanted
    assert not [name for name in names if name.startswith(("tests", "benchmarks", "docs"))]


@pytest.mark.slow
def test_an_installed_command_runs_a_program(wheel: Path, tmp_path: Path) -> None:
    """In an environment with nothing but what the package asks for."""
    done = call(sys.executable, "-m", "venv", tmp_path / "venv")
    assert done.returncode == 0, done.stderr
    python, command = tmp_path / "venv/bin/python", tmp_path / "venv/bin/loadstone"
    done = call(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", wheel)
    assert done.returncode == 0, done.stderr
    done = call(command, "run", "--stats", "/bin/echo", "hello")
    assert (done.stdout, done.returncode) == ("hello\n", 0), done.stderr
    assert "Page faults" in done.stderr
    for words in (
        ("explain", "/bin/ls"),
        ("where", "/bin/ls", "main", "--at", "main"),
        ("maps", "/bin/ls"),
        ("doctor",),
    ):
        done = call(command, *words)
        assert done.returncode == 0, done.stderr
    program = "import loadstone; print(loadstone.explain('/bin/true').format)"
    assert call(python, "-c", program).stdout == "elf64\n"

"""Starting costs what is imported: which packages `loadstone run /bin/true` may load, by name."""

from __future__ import annotations

import subprocess
import sys

import pytest

from support.run import ENVIRONMENT

# Of the standard library, what the way to the first instruction needs: the command line (argparse, with gettext,
# locale, re), the CPU core's library (ctypes), the machine's memory (mmap, array), records (struct, typing).
STANDARD = (
    "__future__ argparse array bisect collections contextlib copyreg ctypes encodings enum fcntl functools gettext "
    "importlib keyword locale mmap operator re reprlib resource select signal struct types typing warnings"
)
SEEDED = "bisect hashlib math numbers random statistics"  # what `random` brings
# Ours that a plain run has no use for.
ABSENT = (
    *("loadstone.report", "loadstone.verify", "loadstone.cli.explain", "loadstone.cli.where", "loadstone.control"),
    *("loadstone.observe.trace", "loadstone.observe.recorder", "loadstone.observe.symbols", "loadstone.observe.image"),
    *("loadstone.observe.object_file", "loadstone.observe.processes", "loadstone.kernel.telling", "loadstone.tree"),
    *("loadstone.linux.proc", "loadstone.linux.strace", "loadstone.vfs.pipe"),
)

SCRIPT = """
import sys
before = set(sys.modules)
from loadstone.cli.main import run_command
status = run_command(["run", "--engine", "unicorn", *sys.argv[1:]])
print(status, *(set(sys.modules) - before))
"""


def modules(*words: str) -> set[str]:
    """What running a program loaded that Python itself had not."""
    line = [sys.executable, "-I", "-c", SCRIPT, *words]
    done = subprocess.run(line, capture_output=True, text=True, check=True, env=dict(ENVIRONMENT))
    status, *names = done.stdout.split()
    assert status == "0", done.stderr
    return set(names)


@pytest.mark.parametrize("words", [("/bin/true",), ("true",), ("--deterministic", "/bin/true")])
def test_what_a_run_may_import(words: tuple[str, ...]) -> None:
    loaded = modules(*words)
    packages = {name.partition(".")[0] for name in loaded} - set(sys.builtin_module_names)  # those cost nothing
    private = {name for name in packages if name.startswith("_") and name in sys.stdlib_module_names}
    allowed = {*STANDARD.split(), *private, *(SEEDED.split() if "--deterministic" in words else ())}
    assert packages - allowed == {"loadstone"}
    assert not [name for name in loaded if name.startswith(ABSENT)]


def test_the_number_of_modules_is_bounded() -> None:
    """One import costs 0.1 to 0.5 ms: what is added here is paid by every run."""
    assert len(modules("/bin/true")) <= 206

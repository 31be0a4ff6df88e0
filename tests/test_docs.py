"""What the documentation says is run: commands in ```console blocks, code in ```python blocks, the links between pages.

In a console block a line that begins with `$ ` is a command, and must end with status 0 unless a comment at its end
says `# exit status N`. The lines below it are its output, each of which must occur, in this order; `...` stands for
anything.
Blocks marked `console sample` show the output of one machine: there only the exit status counts.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "loadstone"
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
BLOCK = re.compile(r"^```(console sample|console|python)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
STATUS = re.compile(r"\s+# exit status (\d+)$")
# What the README tells people to type to set the project up, and what takes long: continuous integration does those.
NOT_HERE = ("make ", "git ", "pip ", "pipx ", "cd ", "python -m benchmarks")


class Step:
    """One command of a console block."""

    def __init__(self, page: str, command: str) -> None:
        found = STATUS.search(command)
        self.page, self.status = page, int(found.group(1)) if found else 0
        self.command = STATUS.sub("", command)
        self.output: list[str] = []


def steps(page: Path) -> list[Step]:
    found: list[Step] = []
    for kind, text in BLOCK.findall(page.read_text()):
        if kind == "python":
            continue
        for line in text.splitlines():
            if line.startswith("$ "):
                found.append(Step(page.name, line[2:]))
            elif kind == "console":
                found[-1].output.append(line)
    return [step for step in found if not step.command.startswith(NOT_HERE)]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("docs")


def environment() -> dict[str, str]:
    path = f"{os.path.dirname(sys.executable)}:/usr/local/bin:/usr/bin:/bin"
    return {"HOME": "/nonexistent", "LC_ALL": "C", "PATH": path, "TZ": "UTC"}


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_commands(page: Path, workplace: Path) -> None:
    """In the order of the page, in one directory."""
    for step in steps(page):
        done = subprocess.run(
            ["/bin/bash", "-c", step.command], cwd=workplace, env=environment(), stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=240, check=False,
        )  # fmt: skip
        assert done.returncode == step.status, f"{step.page}: $ {step.command}\n{done.stdout}"
        printed = iter(done.stdout.splitlines())
        for line in step.output:
            if line.strip() != "...":
                assert line in printed, (
                    f"{step.page}: $ {step.command}\nno line {line!r} (after those before it) in\n{done.stdout}"
                )


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_python(page: Path, workplace: Path) -> None:
    """The blocks of a page are one program, run from top to bottom."""
    blocks = [text for kind, text in BLOCK.findall(page.read_text()) if kind == "python"]
    if not blocks:
        return
    program = "\n".join(blocks)
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=workplace, env=environment(), stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_page_is_in_the_index() -> None:
    index = (ROOT / "docs" / "index.md").read_text()
    pages = [page.name for page in (ROOT / "docs").glob("*.md") if page.name != "index.md"]
    assert [page for page in pages if f"]({page})" not in index] == []


@pytest.mark.parametrize("name", ["run", "explain", "verify", "where", "maps", "timeline", "doctor"])
def test_every_option_is_on_the_page_of_the_command_line(name: str) -> None:
    line = [sys.executable, "-m", "loadstone", name, "--help"]
    usage = subprocess.run(line, env=environment(), capture_output=True, text=True, check=True).stdout
    options = re.findall(r"^ +(--?[a-z][a-z-]*)", usage, re.MULTILINE)
    page = (ROOT / "docs" / "command-line.md").read_text()
    assert options
    assert [option for option in options if not re.search(rf"{option}\b", page)] == []


def test_the_functions_of_the_walkthrough_are_there() -> None:
    text = (ROOT / "docs" / "walkthrough.md").read_text()
    named = re.findall(r"`([a-z_0-9/]+\.(?:py|s)):(\w+)`", text)
    assert named
    for path, name in named:
        source = (SOURCE / path).read_text()
        assert re.search(rf"^\s*(?:def|class) {name}\b|^{name}:", source, re.MULTILINE), f"{path}:{name}"


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_the_files_that_a_page_names_are_there(page: Path) -> None:
    """With a folder: below the root or the package. By the bare name: anywhere."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    named = {name for part in re.findall(r"`([^`\n]+)`", text) for name in re.findall(r"[\w/]+\.(?:py|s)\b", part)}
    bare = {file.name for folder in ("src", "tests", "benchmarks") for file in (ROOT / folder).rglob("*")}
    gone = [name for name in named if not ((ROOT / name).exists() or (SOURCE / name).exists() or name in bare)]
    assert gone == []


def is_there(name: str, bases: list[Path]) -> bool:
    """Whether a dotted name is a package, a module, or something that a module defines."""
    for place in bases:
        parts = name.split(".")
        while parts and (place / parts[0]).is_dir():
            place /= parts.pop(0)
        if not parts:
            return True
        module = place / f"{parts.pop(0)}.py"
        if module.exists():
            text = module.read_text()
            return all(re.search(rf"\b{part}\b", text) for part in parts)
    return False


def test_the_modules_that_docstrings_name_are_there() -> None:
    """Names like `vfs.inode.Inode`, from the package on or from where the file is."""
    rooms = {place.name for place in SOURCE.iterdir() if place.is_dir()}
    objects = {"kernel", "memory", "machine"}  # what is called so is one's attribute as often: `memory.page`
    gone = []
    for file in SOURCE.rglob("*.py"):
        for name in re.findall(r"`(\w+(?:\.\w+)+)(?:\(\))?`", file.read_text()):
            room, *parts = name.split(".")
            if room not in rooms or (room in objects and len(parts) == 1):
                continue
            if not is_there(name, [SOURCE, file.parent, file.parent.parent]):
                gone.append(f"{file.relative_to(SOURCE)}: {name}")
    assert gone == []


def test_rooms_import_downwards_only_as_the_picture_says() -> None:
    """The arrows of the README's picture are those that exist: the list below them is checked against the imports."""
    order = ["cli", "report", "observe", "verify", "linux", "kernel", "vfs", "binfmt", "memory", "machine"]
    found = set()
    for room in order:
        for file in (SOURCE / room).rglob("*.py"):
            for target in re.findall(r"^\s*(?:from|import) loadstone\.(\w+)", file.read_text(), re.MULTILINE):
                if target in order and target != room:
                    found.add((room, target))
    upward = sorted((a, b) for a, b in found if order.index(a) > order.index(b))
    assert not upward
    drawn = set()
    for line in re.findall(r"^    (\w+) +-> (.+)$", (ROOT / "README.md").read_text(), re.MULTILINE):
        drawn |= {(line[0], target) for target in line[1].replace(",", " ").split() if target in order}
    assert drawn == found


def test_the_rooms_below_know_nothing_of_the_machine_as_python_has_it() -> None:
    beside = {"api", "assembly", "host", "guest", "tree", "control"}
    for room in ("observe", "linux", "kernel", "vfs", "binfmt", "memory", "machine"):
        for file in (SOURCE / room).rglob("*.py"):
            used = set(re.findall(r"^\s*(?:from|import) loadstone\.(\w+)", file.read_text(), re.MULTILINE))
            assert not used & beside, file

"""The conformance list: bad and odd files by hand (conformance.cases), on the kernel and on Loadstone.

Each case says what is to come of it on Linux 6.18: an errno, a signal, or an image with certain mappings. Both sides
are held to that, and to each other. On another kernel only to each other.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Callable, Sequence
from typing import NamedTuple

from loadstone.errors import HostError
from loadstone.verify.case import PAGE, Case, write
from loadstone.verify.case_text import parse_all
from loadstone.verify.host_world import HostWorld
from loadstone.verify.noexec import in_noexec_directory
from loadstone.verify.verdict import Judged, Verdict, judge

EXPECTED_OF = (6, 18)  # the kernel that the expectations are of
_FILE = os.path.join(os.path.dirname(__file__), "conformance.cases")
_MAP = re.compile(r"(?P<range>[0-9a-f]+-[0-9a-f]+) (?P<perms>\S+) \S+ \S+ \S+ *(?P<path>.*)")


class Checked(NamedTuple):
    """One case: what both made of it, and what is wrong.

    Attributes:
        judged: None where the case could not be tried, for the reason in `skipped`.
        unmet: the expectations that one side does not meet, with the side's name.
    """

    case: Case
    judged: Judged | None
    unmet: tuple[str, ...]
    skipped: str = ""

    @property
    def good(self) -> bool:
        """Whether nothing is wrong; also of what was skipped."""
        return not self.unmet and (self.judged is None or not self.judged.differences)


def conformance_cases() -> list[Case]:
    """The list."""
    with open(_FILE, encoding="ascii") as file:
        return parse_all(file.read())


def check_all(cases: Sequence[Case], progress: Callable[[int], object] = lambda done: None) -> list[Checked]:
    """Try each case, in a directory and a world of its own. Raises HostError where the kernel cannot be asked."""
    base = tempfile.mkdtemp(prefix="loadstone-conformance-")
    os.chmod(base, 0o755)
    found = []
    try:
        for number, case in enumerate(cases):
            directory = os.path.join(base, str(number))
            os.mkdir(directory)
            os.chmod(directory, 0o755)
            found.append(check(case, directory))
            progress(number + 1)
    finally:
        shutil.rmtree(base)
    return found


def check(case: Case, directory: str) -> Checked:
    """Try one case in an empty directory."""
    if case.uid is not None and os.geteuid():
        return Checked(case, None, (), "only root can execute as somebody else")

    def both() -> Judged:
        write(case, directory)
        world = HostWorld()
        try:
            return judge(case, world, directory)
        finally:
            world.close()

    try:
        judged = in_noexec_directory(directory, both) if case.noexec else both()
    except HostError as error:
        if not case.noexec:
            raise
        return Checked(case, None, (), str(error))
    wrong: list[str] = []
    if _version() >= EXPECTED_OF:
        for side, verdict in (("the kernel", judged.kernel), ("Loadstone", judged.own)):
            wrong += [f"{side}: {line}" for line in case.expected if not met(line, verdict)]
    return Checked(case, judged, tuple(wrong))


def met(expectation: str, verdict: Verdict) -> bool:
    """Whether a verdict is as one `expect` line says.

    The line is an errno's name, `signal N` or `image`; or of an image `map START-END PERMS [NAME]`, `FACT VALUE`, or
    `[no] zeros START-END`, about a page in which something was cleared.
    """
    words = expectation.split()
    if words[0] == "map":
        return _has_mapping(verdict, words[1], words[2], words[3] if len(words) > 3 else "")
    if "zeros" in words:
        start, end = (int(number, 16) for number in words[-1].split("-"))
        page = bytes.fromhex(verdict.facts.get(f"page {start & -PAGE:#x}", ""))
        cleared = page[start % PAGE : start % PAGE + end - start] == bytes(end - start)
        return bool(page) and cleared == (words[0] == "zeros")
    if words[0] in verdict.facts:
        return verdict.facts[words[0]] == words[1]
    return verdict.kind == expectation


def _has_mapping(verdict: Verdict, where: str, perms: str, name: str) -> bool:
    wanted = "-".join(f"{int(number, 16):08x}" for number in where.split("-"))
    for line in verdict.facts.get("maps", "").splitlines():
        found = _MAP.fullmatch(line)
        if found and found["range"] == wanted:
            return found["perms"] == perms and os.path.basename(found["path"]) == name
    return False


def _version() -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", os.uname().release)[:2])

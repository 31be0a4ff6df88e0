"""The differential fuzzer: mutants on both sides, the corpus of what was found, and that faults of ours are found."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from loadstone.binfmt import elf, script
from loadstone.errors import HostError
from loadstone.linux.exec import elf_segments, layout, load_elf
from loadstone.report.verify_fuzz import findings_to_dict, write_findings
from loadstone.verify import verdict
from loadstone.verify.case import ElfFile, TextFile, write
from loadstone.verify.case_text import parse, parse_all, render
from loadstone.verify.conditions import conditions
from loadstone.verify.conformance import check_all
from loadstone.verify.fuzz import Findings, fuzz
from loadstone.verify.host_world import HostWorld
from loadstone.verify.seeds import describe_program, seeds
from loadstone.verify.shrink import shrink

CORPUS = Path(__file__).parent / "corpus"
MUTANTS = 3000
PLANTED = 600  # mutants in which a planted fault must show


def told(findings: Findings) -> str:
    return "\n".join(f"{one.kind}\n{render(one.case)}{one.differences}" for one in findings.disagreements)


def demand_agreement(findings: Findings) -> None:
    assert not findings.wrong, told(findings)
    assert findings.tracebacks == findings.total.leaked == 0
    assert sum(findings.verdicts.values()) == findings.mutants


@pytest.mark.parametrize("seed", [1001, 1002])
def test_the_same_verdict_on_mutants(seed: int) -> None:
    findings = fuzz(MUTANTS // 2, seed)
    demand_agreement(findings)
    assert findings.total.too_large == 0  # no clock is asked here: the machine may be busy
    # The mutants are worth something: every kind of verdict is among them, and a third are images that were compared.
    assert findings.verdicts.keys() >= {"image", "signal 11", "ENOEXEC", "ENOENT", "EACCES", "EIO", "ELOOP", "E2BIG"}
    assert findings.verdicts["image"] > findings.mutants / 5


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("seed", range(10))
def test_the_same_verdict_on_200_000_mutants(seed: int) -> None:
    demand_agreement(fuzz(20_000, seed))


def test_what_the_fuzzer_found_before() -> None:
    cases = [case for file in sorted(CORPUS.glob("*.cases")) for case in parse_all(file.read_text("ascii"))]
    assert cases
    for checked in check_all(cases):
        assert checked.good, (checked.case.what, checked.unmet, checked.judged and checked.judged.differences)


def test_mutants_do_not_depend_on_how_they_are_shared_out() -> None:
    one, two = fuzz(150, 4, workers=1), fuzz(150, 4, workers=2)
    assert one.verdicts == two.verdicts and one.workers == 1


def a_byte_short(monkeypatch: pytest.MonkeyPatch) -> None:
    end = script._end_of_line
    monkeypatch.setattr(script, "_end_of_line", lambda head: end(head[:-1]))


def interpreters_of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(elf, "MAX_INTERPRETER_BYTES", 1 << 40)


def a_bias_that_is_not_aligned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(elf_segments, "program_bias", lambda profile, _, *rest: layout.program_bias(profile, 0, *rest))


def tails_that_are_not_cleared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load_elf._Loader, "_padzero", lambda *_: None)


def a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(elf, "_executable_stack", lambda headers: 1 // sum(entry.type == 1 for entry in headers) or 1)


@pytest.mark.parametrize(
    ("plant", "seen"),
    [
        (interpreters_of_any_size, "ENOEXEC / "),
        (a_bias_that_is_not_aligned, "maps"),
        (tails_that_are_not_cleared, "page"),
        (a_traceback, " / traceback"),
    ],
)
def test_a_planted_fault_is_found_and_shrunk(
    monkeypatch: pytest.MonkeyPatch, plant: Callable[[pytest.MonkeyPatch], None], seen: str
) -> None:
    plant(monkeypatch)
    findings = fuzz(PLANTED, 2)
    found = [one for one in findings.disagreements if seen in one.kind]
    assert found, told(findings)
    case = found[0].case
    assert len(render(case).splitlines()) <= 12, render(case)
    assert parse(render(case)) == case and found[0].differences
    assert bool(findings.tracebacks) == ("traceback" in seen)


def test_a_loop_without_end_is_a_verdict_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def endless(headers: object) -> int:
        while True:
            pass

    case = seeds()[0]
    monkeypatch.setattr(elf, "_executable_stack", endless)
    monkeypatch.setattr(verdict, "_MOST_SECONDS", 0.1)
    write(case, str(tmp_path))
    world = HostWorld()
    found = verdict.own_verdict(case, world, str(tmp_path))
    world.close()
    assert found.kind == "traceback" and "Endless" in found.facts["text"]


def test_the_report_says_what_verdicts_depend_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tails_that_are_not_cleared(monkeypatch)
    findings = fuzz(400, 2, workers=1)
    here = conditions()
    with open(tmp_path / "report", "w+") as stream:
        write_findings(findings, here, stream, 80)
        stream.seek(0)
        text = stream.read()
    assert os.uname().release in text and "vm.overcommit_memory" in text and "vm.mmap_min_addr" in text
    assert "limit: stack" in text and "Disagreement: " in text
    data = findings_to_dict(findings, here)
    assert data["disagreements"] == findings.wrong > 0
    for one in data["classes"]:
        assert parse_all(one["case"]) and one["case"].splitlines()[2] in text


def test_a_work_directory_that_the_guest_does_not_see_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    if not os.path.isdir("/dev/shm"):
        pytest.skip("there is no /dev/shm")
    monkeypatch.setattr("tempfile.tempdir", "/dev/shm")
    with pytest.raises(HostError):
        fuzz(1, 0, workers=1)


def test_seeds_are_of_every_kind() -> None:
    found = seeds()
    files = [file for case in found for file in case.files]
    programs = [file for file in files if isinstance(file, ElfFile)]
    assert {file.bits for file in programs} == {32, 64}
    assert {file.header.type for file in programs} == {2, 3}
    assert any(file.pieces for file in programs) and any(not file.pieces for file in programs)
    assert any(isinstance(file, TextFile) for file in files)
    assert any(case.what.startswith("the shape of /usr/") for case in found)
    described = describe_program("/bin/ls")
    assert described is not None and described.size == os.path.getsize("/bin/ls")
    assert described.headers()[0][1] == Path("/bin/ls").read_bytes()[: len(described.headers()[0][1])]


def test_shrinking_keeps_what_matters_and_drops_the_rest() -> None:
    case = parse(
        """case x
exec argv "a" "b" stack-limit=4096
elf64 "prog" size=0x9000
  header entry=0x400800 flags=0x77
  LOAD r-x offset=0x0 vaddr=0x400000 filesz=0x1000 memsz=0x1000 align=0x1000
  NOTE r-- offset=0x100 vaddr=0x400100 filesz=0x10 memsz=0x10 align=0x4
  LOAD rw- offset=0x1000 vaddr=0x600000 paddr=0x600000 filesz=0x100 memsz=0x5000 align=0x200000
text "other" "nothing"
"""
    )

    def still(smaller: object) -> bool:
        program = smaller.files[0]  # type: ignore[attr-defined]
        return any(entry.vaddr == 0x600000 for entry in program.entries)

    small = shrink(case, still)
    assert len(small.files) == 1 and small.argv == (b"x",) and small.stack_limit is None
    (entry,) = small.files[0].entries  # type: ignore[union-attr]
    assert (entry.vaddr, entry.paddr, entry.filesz, entry.align) == (0x600000, 0, 0, 0x1000)
    assert shrink(case, lambda smaller: False) == case

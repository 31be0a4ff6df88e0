"""What a plan says about an exec, in the words of the native oracle, and the comparison of the two."""

from __future__ import annotations

import os

from loadstone.binfmt.elf import entry_error, interpreter_segment_error, plan_interpreter
from loadstone.binfmt.plan import ElfPlan, ScriptPlan
from loadstone.binfmt.registry import search_binary_handler
from loadstone.binfmt.source import HostSource
from loadstone.errors import LinuxError
from loadstone.verify.native import NativeImage, native_process
from loadstone.verify.native_exec import NativeFailure

PAGE = 4096


class Planned:
    """The plans for a file and its program interpreter, or the error."""

    def __init__(self, path: str) -> None:
        self.program: ElfPlan | None = None
        self.script: ScriptPlan | None = None
        self.interpreter: ElfPlan | None = None
        self.error: LinuxError | None = None
        try:
            self._plan(path)
        except LinuxError as error:
            self.error = error

    def _plan(self, path: str) -> None:
        with HostSource(path) as source:
            plan = search_binary_handler(source)
        if isinstance(plan, ScriptPlan):
            self.script = plan
            return
        if plan.interpreter is not None:
            with HostSource(plan.interpreter or b".") as source:
                self.interpreter = plan_interpreter(source, plan)
        self.program = plan
        for part in (plan, self.interpreter):
            if part is None:
                continue
            for error in (part.error, *(segment.error for segment in part.segments)):
                if error is not None:
                    raise error
        if self.interpreter is None and plan.header.type == 2:
            error = entry_error(plan.entry, plan.bits)
            if error is not None:
                raise error

    @property
    def verdict(self) -> str:
        """`ok`, an errno's name, or `signal N`."""
        if self.error is None:
            return "ok"
        return f"signal {self.error.fatal_signal}" if self.error.fatal_signal else self.error.name


def native(path: str) -> tuple[str, NativeImage | None, dict[int, bytes]]:
    """The kernel's verdict, the image, and the bytes of every mapping of a file (by start address)."""
    try:
        with native_process(path, ["prog"]) as process:
            image = process.image()
            contents = {
                m.start: process.memory(m.start, m.end - m.start)
                for m in image.mappings
                if m.path.startswith("/") and m.end - m.start <= 1 << 20
            }
            return "ok", image, contents
    except NativeFailure as failure:
        return failure.name, None, {}


def compare(path: str) -> str:
    """Compare one file; the kernel's verdict. Raises AssertionError where the plan and the kernel disagree.

    Placement in memory, decided after the point of no return, is not the plan's to know: where it says `ok` the kernel
    may still kill, for a reason that `placement_can_fail` must name.
    """
    planned = Planned(path)
    verdict, image, contents = native(path)
    if planned.verdict == "ok" and verdict == "signal 11":
        assert planned.program is not None
        assert placement_can_fail(planned.program, planned.interpreter), "the kernel kills it, the plan sees no reason"
        return verdict
    assert planned.verdict == verdict, str(planned.error)
    if image is not None and planned.program is not None:
        compare_image(path, planned.program, planned.interpreter, image, contents)
    return verdict


def placement_can_fail(program: ElfPlan, interpreter: ElfPlan | None) -> list[str]:
    """Reasons why mapping these plans can fail although each of their segments is sound."""
    reasons = []
    limit = 0x7FFF_FFFF_F000 if program.bits == 64 else 0xFFFF_E000
    for plan in filter(None, (program, interpreter)):
        room = limit // 3 if plan.header.type == 3 else limit - (256 << 20)
        for segment in plan.segments:
            end = max(segment.start + segment.file_length, segment.anonymous_end)
            if end > room:
                reasons.append(f"segment {segment.index} ends at {end:#x}, near the stack")
            if end - segment.start > 1 << 30:
                reasons.append(f"segment {segment.index} needs {end - segment.start:#x} bytes")
            if segment.file_offset + segment.file_length > 1 << 43:
                reasons.append(f"segment {segment.index} lies beyond the largest file of a file system")
            if segment.prot & 2 and segment.clear_end > segment.clear_start:
                reasons.append(f"segment {segment.index} is cleared where the file may have ended")
            if plan.header.type != 3 and segment.start < 0x10000:
                reasons.append(f"segment {segment.index} is below mmap_min_addr")
        if plan.alignment > 1 << 30:
            reasons.append(f"alignment {plan.alignment:#x}")
        if plan.total_size > limit // 3:
            reasons.append(f"total size {plan.total_size:#x}")
        first = plan.segments[0].start if plan.segments else 0
        if plan.header.type == 3 and any(segment.start < first for segment in plan.segments):
            reasons.append("segments below the first one")
    if program.header.type == 3 and interpreter is None and program.segments and not program.segments[0].file_length:
        reasons.append("no file part in the first segment: address 0, below mmap_min_addr")
    entry = (interpreter or program).entry
    if entry > limit // 3:
        reasons.append(f"entry {entry:#x}")
    if interpreter is not None:
        for segment in interpreter.segments:
            header = interpreter.program_headers[segment.index]
            if interpreter_segment_error(header, limit // 2, program.bits):
                reasons.append("the interpreter's segments reach far")
    return reasons


def compare_image(
    path: str, program: ElfPlan, interpreter: ElfPlan | None, image: NativeImage, contents: dict[int, bytes]
) -> None:
    """The kernel's image against every number of the plans."""
    mask = (1 << program.bits) - 1
    auxv = dict(image.auxiliary_vector)
    bias = (auxv[9] - program.entry) & mask
    if program.header.type == 2:
        assert bias == 0
    assert image.bits == program.bits
    assert auxv[3] == (program.phdr_address + bias) & mask, "AT_PHDR"
    assert auxv[4] == program.header.phentsize
    assert auxv[5] == program.header.phnum
    wide = bias if program.bits == 64 else _signed(bias, program)
    for name in ("start_code", "end_code", "start_data", "end_data"):
        assert image.stat[name] == (getattr(program, name) + wide) & ((1 << 64) - 1), name
    if program.header.type == 2 or interpreter is not None:
        assert image.stat["start_brk"] == (program.brk + bias + PAGE - 1) & -PAGE, "break"
    expected = _pages(program, bias)
    if interpreter is None:
        assert image.pc == (program.entry + bias) & mask
    else:
        base = auxv[7]
        assert image.pc == (interpreter.entry + base) & mask
        loaded = _pages(interpreter, base)
        # A fixed interpreter can replace pages of the program, and the other way round nothing can.
        expected = {page: what for page, what in expected.items() if page not in loaded}
        _compare_pages(os.fsdecode(os.path.realpath(interpreter_path(program))), loaded, image, contents)
    _compare_pages(os.path.realpath(path), expected, image, contents)
    stack = next((m.perms for m in image.mappings if m.path == "[stack]"), None)
    if stack is not None:
        executable = program.executable_stack == 2 or program.read_implies_exec
        assert stack == ("rwxp" if executable else "rw-p")


def interpreter_path(program: ElfPlan) -> bytes:
    """The interpreter a plan names, which exists when there is an image."""
    assert program.interpreter is not None
    return program.interpreter


def _signed(bias: int, program: ElfPlan) -> int:
    """The load bias as the kernel's unsigned long has it: negative when the first segment lies above its place."""
    lowest = min((segment.start for segment in program.segments), default=0)
    return bias - (1 << 32) if lowest + bias >= 1 << 32 else bias


Page = tuple[int, int, int]  # file offset or -1 for anonymous, prot, bytes kept from the file (the rest is zero)


def _pages(plan: ElfPlan, bias: int) -> dict[int, Page]:
    """Page by page what the plan's segments leave behind, later ones over earlier ones."""
    pages: dict[int, Page] = {}
    mask = (1 << plan.bits) - 1
    for segment in plan.segments:
        for done in range(0, min(segment.file_length, 1 << 24), PAGE):
            page = (segment.start + bias + done) & mask
            pages[page] = (segment.file_offset + done, segment.prot, PAGE)
        if segment.clear_end > segment.clear_start and segment.prot & 2:
            page = (segment.clear_start + bias) & mask & -PAGE
            offset, prot, _ = pages[page]
            pages[page] = (offset, prot, segment.clear_start % PAGE)
        end = min(segment.anonymous_end, segment.anonymous_start + (1 << 24))
        prot = 3 | segment.prot & 4  # always readable and writable, executable if the segment is (vm_brk_flags)
        for address in range(segment.anonymous_start, end, PAGE):
            pages[(address + bias) & mask] = (-1, prot, 0)
    return pages


def _compare_pages(path: str, pages: dict[int, Page], image: NativeImage, contents: dict[int, bytes]) -> None:
    with open(path, "rb") as file:
        data = file.read()
    implied = 4 if image.bits == 32 and any(m.path == "[stack]" and "x" in m.perms for m in image.mappings) else 0
    mappings = list(image.mappings)
    for page, (offset, prot, kept) in sorted(pages.items()):
        while mappings and mappings[0].end <= page:
            mappings.pop(0)
        assert mappings and mappings[0].start <= page, f"page {page:#x} is not mapped"
        mapping = mappings[0]
        shown = "".join(letter if prot & bit else "-" for letter, bit in (("r", 1), ("w", 2), ("x", 4)))
        if not (implied and prot & 1):
            assert mapping.perms[:3] == shown, f"page {page:#x}"
        if offset < 0:
            assert not mapping.path.startswith("/"), f"page {page:#x} should be anonymous"
            continue
        assert mapping.path == path, f"page {page:#x}"
        assert mapping.offset + page - mapping.start == offset, f"page {page:#x}"
        found = contents.get(mapping.start, b"")[page - mapping.start : page - mapping.start + PAGE]
        if len(found) == PAGE and offset < len(data):
            assert found == data[offset : offset + kept].ljust(PAGE, b"\0"), f"bytes of page {page:#x}"

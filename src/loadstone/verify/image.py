"""A process image of the kernel's beside ours: what is compared, what must differ, and what differs.

Both sides become an `ImageFacts` (a copy, without a process or machine behind it); `compare` puts two of them side by
side. Every class of difference has its `linux.exec.origins.Origin`: the rule by which the kernel puts the thing there.
"""

from __future__ import annotations

import os
from difflib import SequenceMatcher
from typing import TYPE_CHECKING, NamedTuple

from loadstone.linux.exec import auxv, origins
from loadstone.linux.vdso import asking_the_machine
from loadstone.verify.native import parse_maps

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from loadstone.linux.exec.new_image import ExecImage
    from loadstone.linux.exec.origins import Origin
    from loadstone.linux.exec.stack import Word
    from loadstone.verify.native import NativeProcess

PAGE = 4096
_FRAME_MASK = 0x000F_FFFF_FFFF_F000
_PRESENT = 1
# ptrace's note of the system call that the process is in: kept beside the registers, no register of the program.
_NOT_REGISTERS = ("orig_rax", "orig_eax")


class ImageFacts(NamedTuple):
    """Everything of a process image that can be compared. Addresses and sizes in bytes."""

    bits: int
    maps: str  # /proc/PID/maps
    auxv: tuple[tuple[int, int], ...]
    registers: dict[str, int]
    stack_pointer: int
    stack: bytes  # from the stack pointer to the stack's end
    notes: dict[str, int | str]  # the fields of /proc/PID/stat that describe the image, and comm
    pages: dict[int, bytes]  # pages of the program that the kernel wrote before the first instruction
    vdso: bytes  # the code in [vdso]; empty where there is none, or no code of the kernel's to compare

    @property
    def stack_top(self) -> int:
        """The end of the stack's mapping."""
        return self.stack_pointer + len(self.stack)


class Difference(NamedTuple):
    """One thing that is not the same on both sides, or that one side does not have ("")."""

    what: str
    ours: str
    kernel: str
    origin: Origin


class MustDiffer(NamedTuple):
    """One thing that no two execs have in common, or that Loadstone makes otherwise on purpose."""

    what: str
    reason: str


RANDOM = MustDiffer("AT_RANDOM bytes", "16 bytes that the kernel draws for every exec")
VDSO = MustDiffer(
    "[vdso] contents",
    "the host's own code, but that getcpu makes the system call: it would ask the host's CPU for its number",
)
VDSO_32 = MustDiffer(
    "[vdso] contents",
    "no CPU core here runs 32-bit programs yet, so there is no code to lend them; place and size are compared",
)
VDSO_OF_ANOTHER = MustDiffer(
    "[vdso] contents",
    "the code of another kernel than the one underneath is not at hand: a small vDSO of Loadstone's takes its place",
)
PROCESS_ID = MustDiffer("process id", "the next free number of each kernel; no byte of the image holds it")


class Comparison(NamedTuple):
    """What came of comparing two images."""

    differences: tuple[Difference, ...]
    must_differ: tuple[MustDiffer, ...]  # what was seen to differ as it must
    compared: int  # bytes of stack, vDSO and written pages that were compared
    mappings: int


def facts_of_native(process: NativeProcess, pages: frozenset[int] = frozenset()) -> ImageFacts:
    """The kernel's side. `pages`: addresses of the pages to read besides the stack. Raises as `NativeProcess` does."""
    image = process.image()
    registers = {name: value for name, value in image.registers.items() if name not in _NOT_REGISTERS}
    return ImageFacts(
        image.bits,
        image.maps,
        image.auxiliary_vector,
        registers,
        image.stack_pointer,
        image.stack,
        {**image.stat, "comm": image.name},
        {address: process.memory(address, PAGE) for address in sorted(pages)},
        b"".join(process.memory(line.start, line.end - line.start) for line in image.mappings if line.path == "[vdso]"),
    )


def facts_of_image(image: ExecImage, *, host_vdso: bool) -> ImageFacts:
    """Our side. `host_vdso`: the code lent to programs is the host's own, and so worth comparing."""
    stack, space = image.stack, image.space
    notes: dict[str, int | str] = {
        "start_code": image.start_code,
        "end_code": image.end_code,
        "start_stack": space.start_stack,
        "start_data": image.start_data,
        "end_data": image.end_data,
        "start_brk": image.brk,
        "arg_start": stack.argument_start,
        "arg_end": stack.argument_end,
        "env_start": stack.environment_start,
        "env_end": stack.environment_end,
        "comm": image.name,
    }
    return ImageFacts(
        image.plan.bits,
        space.render_maps(),
        image.auxv,
        image.registers,
        stack.pointer,
        stack.bytes,
        notes,
        dict(_written_pages(image)),
        _vdso_code(image) if host_vdso and image.plan.bits == 64 else b"",  # there is no 32-bit vDSO of ours yet
    )


def compare(ours: ImageFacts, kernel: ImageFacts, layout: list[Word], program: str, interpreter: str) -> Comparison:
    """Put the two side by side.

    Args:
        ours, kernel: the two images; the kernel's with the pages that ours has.
        layout: the items of our initial stack, in ascending order, which give a differing byte its name.
        program, interpreter: paths of the mapped file and of its interpreter ("" for none).
    """
    differences = [
        *_compare_maps(ours, kernel, program, interpreter),
        *_compare_auxv(ours, kernel),
        *_compare_registers(ours.registers, kernel.registers),
        *_compare_notes(ours.notes, kernel.notes),
    ]
    different_stack, random = _compare_stack(ours, kernel, layout)
    different_vdso, vdso = _compare_vdso(ours, kernel)
    return Comparison(
        (*differences, *different_stack, *_compare_pages(ours, kernel), *different_vdso),
        (*((RANDOM,) if random else ()), *vdso, PROCESS_ID),
        len(ours.stack) + PAGE * len(ours.pages) + len(ours.vdso),
        ours.maps.count("\n"),
    )


def _written_pages(image: ExecImage) -> Iterator[tuple[int, bytes]]:
    """What the kernel wrote outside the stack: the cleared tails of segments."""
    space = image.space
    for address, _, entry in space.page_table.entries(0, space.layout.task_size):
        vma = space.find(address)
        if entry & _PRESENT and vma is not None and not vma.start <= image.stack.pointer < vma.end:
            yield address, bytes(space.memory.page((entry & _FRAME_MASK) >> 12))


def _vdso_code(image: ExecImage) -> bytes:
    for vma in image.space.vmas:
        if vma.name == "[vdso]" and vma.backing is not None:
            code = bytearray(vma.end - vma.start)
            for index in range(len(code) // PAGE):
                vma.backing.read_pages(index, memoryview(code)[index * PAGE : (index + 1) * PAGE])
            return bytes(code)
    return b""


def _compare_maps(ours: ImageFacts, kernel: ImageFacts, program: str, interpreter: str) -> Iterator[Difference]:
    """Line by line; lines that one side has at the same place as the other are set side by side."""
    mine, theirs = ours.maps.splitlines(), kernel.maps.splitlines()
    matcher = SequenceMatcher(None, mine, theirs, autojunk=False)
    for tag, a, b, c, d in matcher.get_opcodes():
        if tag == "equal":
            continue
        for row in range(max(b - a, d - c)):
            left = mine[a + row] if a + row < b else ""
            right = theirs[c + row] if c + row < d else ""
            (mapping,) = parse_maps(right or left)
            made = origins.of_mapping(mapping.path, program, interpreter)
            yield Difference(f"mapping {made.name}", _short(left), _short(right), made)


def _short(line: str) -> str:
    """A line of /proc/PID/maps without the blanks before its path."""
    return " ".join(line.split(None, 5))


def _compare_auxv(ours: ImageFacts, kernel: ImageFacts) -> Iterator[Difference]:
    """Entry by entry, then the order."""
    mine, theirs = dict(ours.auxv), dict(kernel.auxv)
    for key in dict.fromkeys((*theirs, *mine)):
        left, right = mine.get(key), theirs.get(key)
        if left != right:
            name = auxv.name(key)
            yield Difference(name, _hex(left), _hex(right), origins.of_auxv(name))
    if mine == theirs and ours.auxv != kernel.auxv:
        left_names, right_names = (" ".join(auxv.name(key) for key, _ in side.auxv) for side in (ours, kernel))
        yield Difference("order of the auxiliary vector", left_names, right_names, origins.of_auxv("AT_NULL"))


def _compare_registers(ours: Mapping[str, int], kernel: Mapping[str, int]) -> Iterator[Difference]:
    for name in dict.fromkeys((*kernel, *ours)):
        left, right = ours.get(name), kernel.get(name)
        if left != right:
            yield Difference(name, _hex(left), _hex(right), origins.of_register(name))


def _compare_notes(ours: Mapping[str, int | str], kernel: Mapping[str, int | str]) -> Iterator[Difference]:
    for name, right in kernel.items():
        left = ours[name]
        if left != right:
            yield Difference(name, _note(left), _note(right), origins.of_note(name))


def _compare_stack(ours: ImageFacts, kernel: ImageFacts, layout: list[Word]) -> tuple[list[Difference], bool]:
    """Byte by byte, at the same addresses; the differences, and whether the random bytes differed.

    Where the stack pointers differ, argc and the pointers are compared at the same distance from them; the auxiliary
    vector was compared by entries.
    """
    differences = []
    random = False
    shift = kernel.stack_pointer - ours.stack_pointer
    if shift:
        left_pointer, right_pointer = hex(ours.stack_pointer), hex(kernel.stack_pointer)
        differences.append(Difference("stack pointer", left_pointer, right_pointer, origins.of_word("pointer")))
    if ours.stack_top != kernel.stack_top:
        why = origins.of_mapping("[stack]", "", "")
        differences.append(Difference("stack top", hex(ours.stack_top), hex(kernel.stack_top), why))
        return differences, random
    for word in layout:
        moves = word.what.startswith(_TABLES) and not word.what.endswith(" string")
        if shift and (word.what == "padding" or word.what.endswith((" type", " value"))):
            continue
        left = _slice(ours, word.address, word.size)
        right = _slice(kernel, word.address + (shift if moves else 0), word.size)
        if left == right:
            continue
        if word.what == "AT_RANDOM bytes" and len(right) == 16:
            random = True
            continue
        what = f"stack {word.address:#x}: {word.what}"
        differences.append(Difference(what, _bytes(left), _bytes(right), origins.of_word(word.what)))
    return differences, random


_TABLES = ("argc", "argv", "envp")


def _slice(side: ImageFacts, address: int, size: int) -> bytes:
    start = address - side.stack_pointer
    return side.stack[max(start, 0) : max(start + size, 0)]


def _compare_pages(ours: ImageFacts, kernel: ImageFacts) -> Iterator[Difference]:
    """The pages that the kernel wrote."""
    for address, left in ours.pages.items():
        right = kernel.pages.get(address, b"")
        if left != right:
            yield _first_bytes(address, left, right, origins.of_memory(""))


def _compare_vdso(ours: ImageFacts, kernel: ImageFacts) -> tuple[list[Difference], tuple[MustDiffer, ...]]:
    """The vDSO's code: the same, or different only in what `linux.vdso` changes on purpose."""
    if ours.vdso == kernel.vdso:
        return [], ()
    if not ours.vdso:
        return [], (VDSO_32 if kernel.bits == 32 else VDSO_OF_ANOTHER,)
    if asking_the_machine(kernel.vdso) == ours.vdso:
        return [], (VDSO,)
    return [_first_bytes(0, ours.vdso, kernel.vdso, origins.of_memory("[vdso]"))], ()


def _first_bytes(address: int, left: bytes, right: bytes, origin: Origin) -> Difference:
    """The first place at which two blocks of bytes differ."""
    first = next((at for at, (one, two) in enumerate(zip(left, right, strict=False)) if one != two), 0)
    place = f"{address + first:#x}" if address else f"[vdso] + {first:#x}"
    return Difference(f"bytes at {place}", _bytes(left[first : first + 16]), _bytes(right[first : first + 16]), origin)


def _note(value: int | str) -> str:
    return hex(value) if isinstance(value, int) else value


def _hex(value: int | None) -> str:
    return "" if value is None else hex(value)


def _bytes(data: bytes) -> str:
    """Bytes for a person: text where it is text, a number where it is a word, else hexadecimal."""
    if not data:
        return ""
    text = data.rstrip(b"\0")
    if text and text.isascii() and os.fsdecode(text).isprintable():
        return repr(os.fsdecode(text)) if len(text) <= 60 else repr(os.fsdecode(text[:57])) + "…"
    if len(data) in (4, 8):
        return hex(int.from_bytes(data, "little"))
    return data[:24].hex(" ") + ("…" if len(data) > 24 else "")

"""What execve does not do twice, or not one by one: the outcome is the same, and nothing that is kept goes stale."""

from __future__ import annotations

import os
from collections.abc import Iterator
from errno import ENOEXEC
from pathlib import Path
from random import Random

import pytest

from loadstone.binfmt.known import FirstPage
from loadstone.errors import LinuxError
from loadstone.events import Events
from loadstone.linux.exec.new_image import ExecImage
from loadstone.linux.exec.prepared_images import Asked, Places, PreparedImages
from loadstone.machine.paging import FRAME_MASK, PRESENT
from loadstone.memory.address_space import AddressSpace
from loadstone.memory.fill_ahead import FillAhead
from loadstone.memory.flags import RLIMIT_AS, RLIMIT_DATA
from loadstone.memory.placement import Layout
from loadstone.memory.vma import PAGE
from loadstone.vfs.flags import O_RDWR
from support.compilers import Compiler
from support.elfbuilder import Entry, elf, patch
from support.exec_world import HostWorld, user_memory
from support.run import loadstone

R, W, X, LOAD, DYN = 4, 2, 1, 1, 3
STRINGS = (b"other", b"strings")


@pytest.fixture
def world() -> Iterator[HostWorld]:
    here = HostWorld()
    yield here
    here.close()


def program(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    path.chmod(0o755)
    return str(path)


def observed(image: ExecImage) -> tuple[object, ...]:
    """All that is known of the address space of an image, which is given back."""
    space = image.space
    usage = space.usage
    found = (
        space.render_maps(),
        [(vma.flags, vma.offset, vma.path, vma.anon_vma is None, vma.file is None) for vma in space.vmas],
        [entry & ~FRAME_MASK for _, _, entry in space.page_table.entries(0, image.stack.top)],
        b"".join(user_memory(image, *page) for page in readable_pages(space)),
        (usage.total, usage.data, usage.executable, usage.stack, usage.locked, usage.peak),
        (space.limits.commitment.promised, space.resident_pages, space.minor_faults, space.major_faults),
        (image.entry, image.bias, image.interpreter_bias, image.brk, image.auxv),
        user_memory(image, image.pointer, len(image.stack.bytes)),
    )
    space.release()
    return found


def readable_pages(space: AddressSpace) -> list[tuple[int, int]]:
    """Address and length of what is there."""
    return [(page, PAGE) for page, _, entry in space.page_table.entries(0, space.layout.task_size) if entry & PRESENT]


def one_by_one(world: HostWorld, path: str) -> ExecImage:
    """The image as it is made where somebody listens to each mapping: step by step."""
    told: list[object] = []
    world.events = Events()
    world.events.map = (told.append,)
    try:
        image = world.exec(path)
    finally:
        world.events = None
    assert len(told) > len(image.elf.segments)
    return image


class FillingAhead(HostWorld):
    """One in which exec maps and copies what is cached."""

    def new_space(self, layout: Layout) -> AddressSpace:
        space = super().new_space(layout)
        space.fill_ahead = FillAhead(self.cache)
        return space


@pytest.fixture(params=[HostWorld, FillingAhead])
def any_world(request: pytest.FixtureRequest) -> Iterator[HostWorld]:
    here: HostWorld = request.param()
    yield here
    here.close()


class Noting(PreparedImages):
    """Images, and which of them were asked for and found."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[bool] = []

    def fill(self, space: AddressSpace, asked: Asked) -> Places | None:
        places = super().fill(space, asked)
        self.found.append(places is not None)
        return places


def at_once(world: HostWorld, path: str) -> ExecImage:
    """The image as it is made where the program was executed twice before."""
    images = world.images = Noting()
    for _ in range(2):
        world.exec(path, STRINGS, STRINGS, tells=False).space.release()
    image = world.exec(path, tells=False)
    assert images.found == [False, False, True]
    return image


@pytest.mark.parametrize("path", ["/bin/true", "/bin/bash", "/usr/bin/python3", "/bin/ls"])
def test_an_image_made_at_once_is_what_it_is_step_by_step(any_world: HostWorld, path: str) -> None:
    if not os.path.exists(path):
        pytest.skip(f"this machine has no {path}")
    assert observed(at_once(any_world, path)) == observed(one_by_one(any_world, path))


@pytest.mark.parametrize("variant", ["pie", "no-pie", "static", "static-pie"])
def test_all_kinds_of_programs_are_made_alike(any_world: HostWorld, compiled: Compiler, variant: str) -> None:
    source = "char big[300000]; int filled[2000] = {1, 2}; int main(void) { return big[5] + filled[1]; }\n"
    path = compiled(source, variant)
    assert observed(at_once(any_world, path)) == observed(one_by_one(any_world, path))


def test_data_that_was_written_to_the_file_since_is_in_the_next_image(any_world: HostWorld, tmp_path: Path) -> None:
    """The page stays in the cache, so that nothing else tells."""
    entries = [Entry(LOAD, R | X, 0, 0x400000, 0x1000), Entry(LOAD, R | W, 0x1000, 0x402000, 0x800, 0x1000)]
    path = program(tmp_path / "data", elf(entries, entry=0x400800, size=0x2000))
    at_once(any_world, path).space.release()
    location = any_world.open_program(path)
    file = location.inode.open(O_RDWR, location)
    file.write_from([memoryview(b"changed")], 0x1000)
    file.write_from([memoryview(b"past the end of the data")], 0x1800)
    file.close()
    image = any_world.exec(path, tells=False)
    assert user_memory(image, 0x402000, 7) == b"changed"
    assert user_memory(image, 0x402800, 8) == bytes(8)
    assert observed(any_world.exec(path, tells=False)) == observed(one_by_one(any_world, path))
    image.space.release()


def random_program(numbers: Random) -> bytes:
    """One to four segments, near each other, of any permissions, with and without .bss; some fail, some overlap."""
    address, entries = 0x400000, []
    for number in range(numbers.randint(1, 4)):
        length = numbers.choice((0x234, 0x1000, 0x1234, 0x1000, 0x234, 0))
        memory = length + numbers.choice((0, 0, 0, 0x100, 0x3000))
        flags = numbers.choice((R, R | X, R | W, R | W, W, 0) if number else (R, R | X, R | W))
        entries.append(Entry(LOAD, flags, 0x1000 * number, address, length, memory))
        address += (memory + 0xFFF & -0x1000) + numbers.choice((0, 0, 0x1000, 0x5000, 0x200000, 0x200000, -0x1000))
    return elf(entries, type=numbers.choice((2, DYN)), entry=0x400800, size=0x6000)


def outcome(world: HostWorld, path: str, *, told: bool) -> object:
    try:
        if told:
            return observed(one_by_one(world, path))
        for _ in range(2):
            world.exec(path, tells=False).space.release()
        return observed(world.exec(path, tells=False))
    except LinuxError as error:
        return error.errno, error.why, error.fatal_signal
    except AssertionError:
        raise
    finally:
        world.events = None


@pytest.mark.parametrize("seed", range(200))
def test_random_segments_are_mapped_alike_or_fail_alike(world: HostWorld, tmp_path: Path, seed: int) -> None:
    path = program(tmp_path / "random", random_program(Random(seed)))
    assert outcome(world, path, told=False) == outcome(world, path, told=True)


@pytest.mark.parametrize("offset", [(1 << 63) - 0x2000, (1 << 63) - 0x1000, 1 << 63, (1 << 64) - 0x1000])
def test_an_offset_that_no_file_reaches_is_refused_alike(world: HostWorld, tmp_path: Path, offset: int) -> None:
    far = Entry(LOAD, R | X, offset, 0, 0x1000)
    for entries in ([far], [far, Entry(LOAD, R, 0, 0x9000, 0x1000)]):  # the first one reserves as much as all
        path = program(tmp_path / "far", elf(entries, type=DYN))
        assert outcome(world, path, told=False) == outcome(world, path, told=True)


@pytest.mark.parametrize("resource", [RLIMIT_AS, RLIMIT_DATA])
def test_every_limit_refuses_what_it_refuses_step_by_step(world: HostWorld, tmp_path: Path, resource: int) -> None:
    entries = [Entry(LOAD, R | X, 0, 0, 0x1000), Entry(LOAD, R | W, 0x1000, 0x9000, 0x1000, 0x8000)]
    path = program(tmp_path / "limited", elf(entries, type=DYN, entry=0x800))
    seen = set()
    for pages in range(80):
        world.rlimits[resource] = (pages << 12, 1 << 30)
        verdict = outcome(world, path, told=False)
        assert verdict == outcome(world, path, told=True), f"{pages} pages"
        seen.add(len(verdict) if isinstance(verdict, tuple) else 0)
    assert len(seen) == 2, "some limits were enough, and some were not"


def two_versions() -> tuple[bytes, bytes]:
    """A program, and the same with another entry point: they differ in one byte of their first page."""
    first = elf([Entry(LOAD, R | X, 0, 0x400000, 0x1000)], entry=0x400800)
    return first, patch(first, 24, 8, 0x400900)


def entry(world: HostWorld, path: str) -> int:
    image = world.exec(path)
    image.space.release()
    return image.entry


def test_a_file_that_is_written_in_place_is_looked_at_anew(world: HostWorld, tmp_path: Path) -> None:
    first, second = two_versions()
    path = program(tmp_path / "program", first)
    status = os.stat(path)
    assert [entry(world, path), entry(world, path)] == [0x400800] * 2
    with open(path, "r+b") as file:
        file.write(second)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))  # neither size, inode nor time tell
    assert entry(world, path) == 0x400900


def test_a_file_that_is_cut_is_looked_at_anew(world: HostWorld, tmp_path: Path) -> None:
    path = program(tmp_path / "program", two_versions()[0])
    assert entry(world, path) == 0x400800
    os.truncate(path, 100)
    with pytest.raises(LinuxError, match="past the end of the file"):
        world.exec(path)


def test_a_name_that_leads_to_another_file_leads_to_its_plan(world: HostWorld, tmp_path: Path) -> None:
    first, second = two_versions()
    one, other = program(tmp_path / "one", first), program(tmp_path / "other", second)
    assert [entry(world, one), entry(world, other), entry(world, one)] == [0x400800, 0x400900, 0x400800]


STORES = r"""
int run(void) {
    int status, child = fork();
    if (!child) {
        execl("copy", "copy", (char *)0);
        _exit(errno);
    }
    waitpid(child, &status, 0);
    return WEXITSTATUS(status);
}
int main(void) {
    int file = open("copy", O_RDWR);
    char *start = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    int before = run(), again = run();
    start[1] = 'X';
    int spoilt = run();
    start[1] = 'E';
    printf("%d %d %d %d\n", before, again, spoilt, run());
}
"""


def test_a_store_through_a_mapping_is_seen_by_the_next_exec(compiled: Compiler, tmp_path: Path) -> None:
    """No call tells of it, and no time of the file does."""
    includes = ("errno.h", "fcntl.h", "stdio.h", "sys/mman.h", "sys/wait.h", "unistd.h")
    path = compiled("".join(f"#include <{name}>\n" for name in includes) + STORES)
    program(tmp_path / "copy", Path("/bin/true").read_bytes())
    assert loadstone("run", path, cwd=tmp_path).stdout == f"0 0 {ENOEXEC} 0\n".encode()


def test_a_plan_that_needed_more_than_the_first_page_is_not_kept(world: HostWorld, tmp_path: Path) -> None:
    far = elf([Entry(LOAD, R | X, 0, 0x400000, 0x1000)], entry=0x400800, phoff=0x2000)
    path = program(tmp_path / "far", far)
    assert entry(world, path) == 0x400800
    moved = patch(far, 0x2000 + 16, 8, 0x410000)  # p_vaddr, in the third page
    Path(path).write_bytes(moved)
    image = world.exec(path)
    assert f"{0x410000:08x}-" in image.space.render_maps()
    image.space.release()


def test_what_is_asked_beyond_the_first_page_is_noted() -> None:
    class Source:
        size = 8192

        def read(self, offset: int, length: int) -> bytes:
            return bytes([7]) * min(length, 8192 - offset)

    page = FirstPage(Source())
    assert page.read(4000, 96) == bytes([7]) * 96
    assert page.suffices
    assert page.read(4000, 97) == bytes([7]) * 97
    assert not page.suffices


def test_a_failing_plan_fails_with_an_error_of_its_own_each_time(world: HostWorld, tmp_path: Path) -> None:
    bad = elf([Entry(LOAD, R | X, 0, 0x400000, 0x1000, 0x800)], entry=0x400800)  # p_filesz > p_memsz
    path = program(tmp_path / "bad", bad)
    errors = []
    for _ in range(2):
        with pytest.raises(LinuxError) as failure:
            world.exec(path)
        errors.append(failure.value)
    assert errors[0] is not errors[1]
    assert errors[0].why == errors[1].why

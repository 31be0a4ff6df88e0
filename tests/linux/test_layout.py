"""Where areas go: worked out by hand, and against the kernel with randomisation on."""

from __future__ import annotations

import os
import subprocess

import pytest

from loadstone.linux.exec import layout
from loadstone.linux.profile import KernelProfile
from support.exec_world import HostWorld

UNLIMITED = (1 << 64) - 1
PROFILE = KernelProfile()


@pytest.mark.parametrize(
    ("limit", "base"),
    [
        (8 << 20, 0x7FFFF7FFF000),  # 128 MiB below the top
        (0, 0x7FFFF7FFF000),
        (127 << 20, 0x7FFFF7FFF000),  # 127 + 1 MiB of guard gap: still 128
        (200 << 20, 0x7FFFFFFFF000 - (201 << 20)),
        (1 << 40, 0x7FFFFFFFF000 - (1 << 40) - (1 << 20)),
        (UNLIMITED, 0x155555556000),  # five sixths stay free
    ],
)
def test_mmap_base(limit: int, base: int) -> None:
    assert layout.mmap_bases(PROFILE, limit, None) == (base, 0x2AAAAAAAB000, True)


def test_legacy_layouts() -> None:
    bottom_up = (0x2AAAAAAAB000, 0x2AAAAAAAB000, False)
    assert layout.mmap_bases(PROFILE._replace(legacy_layout=True), 8 << 20, None) == bottom_up
    old = PROFILE._replace(legacy_when_unlimited=True)
    assert layout.mmap_bases(old, UNLIMITED, None) == bottom_up
    assert layout.mmap_bases(old, 8 << 20, None) == (0x7FFFF7FFF000, 0x2AAAAAAAB000, True)


def test_both_mmap_bases_move_by_one_draw() -> None:
    for seed in range(20):
        top, legacy, _ = layout.mmap_bases(PROFILE, 8 << 20, layout.Draws(seed))
        gap = 0x400100000 - 4096 + (8 << 20)  # random stack pages, the guard gap and the stack limit
        assert 0x7FFFFFFFF000 - gap - top == legacy - 0x2AAAAAAAB000 > 0


def test_places_without_randomisation() -> None:
    wide = (0x7FFFFFFFF000, 0x7FFFF7FFF000, 0x2AAAAAAAB000, True, 0x7FFFFFFFF000)
    narrow = (0xFFFFE000, 0xF7FFE000, 0x55555000, True, 0xFFFFE000)
    assert layout.place(PROFILE, 8 << 20, None) == wide
    assert layout.place(PROFILE, 8 << 20, None, 32) == narrow
    assert layout.program_bias(PROFILE, 4096, None) == 0x555555554000
    assert layout.program_bias(PROFILE, 0x200000, None) == 0x555555400000
    assert layout.program_bias(PROFILE, 4096, None, 32) == 0x56555000
    assert layout.align_stack(0x7FFFFFFFE123, None) == 0x7FFFFFFFE120


def test_the_vdso_of_older_kernels_is_asked_for_above_the_stack() -> None:
    old = PROFILE._replace(vdso_above_stack=True)
    assert layout.vdso_hint(PROFILE, 0x7FFFFFFDD123, 0x6000, None) == 0
    assert layout.vdso_hint(old, 0x7FFFFFFDD123, 0x6000, None) == 0x7FFFFFFDE000


def test_draws_keep_to_the_kernels_ranges() -> None:
    tops, bases, programs, breaks = set(), set(), set(), set()
    for seed in range(300):
        draws = layout.Draws(seed)
        place = layout.place(PROFILE, 8 << 20, draws)
        assert 0 <= 0x7FFFFFFFF000 - place.stack_top <= (0x3FFFFF << 12) + 8192
        # the gap grows by the 16 GiB that the stack may move, and the guard gap
        highest = 0x7FFFFFFFF000 - (8 << 20) - (0x3FFFFF << 12) - (1 << 20)
        assert 0 <= highest - place.mmap_base < 1 << 40
        assert place.mmap_base < place.stack_top - (8 << 20)
        program = layout.program_bias(PROFILE, 0x200000, draws)
        assert 0 <= program - 0x555555400000 < 1 << 40 and program % 0x200000 == 0
        brk = layout.random_brk(0x555555560000, draws)
        assert 0 <= brk - 0x555555560000 < 1 << 30
        assert not (place.stack_top | place.mmap_base | brk) % 4096
        tops.add(place.stack_top)
        bases.add(place.mmap_base)
        programs.add(program)
        breaks.add(brk)
    assert min(map(len, (tops, bases, programs, breaks))) > 290


def test_one_seed_gives_one_image() -> None:
    images = []
    for seed in (1, 1, 2):
        world = HostWorld()
        images.append(world.exec("/bin/true", envp=[b"A=1"], draws=layout.Draws(seed)))
        world.close()
    first, again, other = (image.space.render_maps() for image in images)
    assert first == again != other
    assert images[0].stack.bytes == images[1].stack.bytes
    assert images[0].pointer % 16 == images[2].pointer % 16 == 0


def test_randomised_images_look_like_the_kernels() -> None:
    """The same mappings in the same order with the same sizes, and gaps within what the kernel's own draws give."""
    if os.path.exists("/proc/sys/kernel/randomize_va_space"):
        with open("/proc/sys/kernel/randomize_va_space") as file:
            if file.read().strip() != "2":
                pytest.skip("the host does not randomise")
    native = subprocess.run(["/bin/cat", "/proc/self/maps"], capture_output=True, text=True, check=True, env={}).stdout
    world = HostWorld()
    image = world.exec("/bin/cat", [b"cat", b"/proc/self/maps"], draws=layout.Draws(5))
    ours = image.space.render_maps()
    world.close()

    def shape(text: str, name: str) -> list[tuple[int, str]]:
        rows = [line.split() for line in text.splitlines() if line.endswith(name)]
        return [(int(row[0][13:], 16) - int(row[0][:12], 16), row[1]) for row in rows]

    for name in ("[vvar]", "[vvar_vclock]", "[vdso]", "[stack]"):
        assert shape(ours, name) == shape(native, name)
    top = int(next(line for line in ours.splitlines() if line.endswith("[stack]")).split()[0].partition("-")[2], 16)
    assert top == image.stack.top < 0x7FFFFFFFF000
    assert image.brk > max(vma.end for vma in image.space.vmas if vma.path.endswith("/cat"))

"""Profiles of other kernels: what their sources say, asked of images that are built by them."""

from __future__ import annotations

import errno
import struct
from pathlib import Path

import pytest

from loadstone.api import Machine
from loadstone.cli import machine_options
from loadstone.errors import LinuxError
from loadstone.linux.exec import auxv
from loadstone.linux.exec.new_image import ExecImage
from loadstone.linux.profile import BRK_ALWAYS, BRK_NEVER, BRK_RANDOMIZED, KernelProfile
from loadstone.linux.profile_fields import FIELDS, profile_differences
from loadstone.linux.profiles import kernel_names, kernel_profile
from loadstone.verify.native import parse_maps
from loadstone.verify.probe import fixed_i386_program, static_pie_program
from support.compilers import Compiler

HELLO = '#include <stdio.h>\nint main(void) { puts("hello"); return 0; }\n'
OLDER = kernel_names()[1:]


def image_of(kernel: str, path: str, argv: list[bytes] | None = None) -> ExecImage:
    machine = Machine(profile=kernel_profile(kernel), memory=64 << 20, stack_limit=8 << 20, keep_faults=False)
    return machine.prepare(path, [b"program"] if argv is None else argv, [])


def names(image: ExecImage) -> list[str]:
    return [auxv.name(key) for key, _ in image.auxv]


def made(directory: Path, data: bytes) -> str:
    path = directory / "program"
    path.write_bytes(data)
    path.chmod(0o755)
    return str(path)


def test_the_command_line_knows_them_all() -> None:
    assert kernel_names() == machine_options.KERNELS
    with pytest.raises(KeyError):
        kernel_profile("2.4")


def test_every_field_that_differs_has_its_source() -> None:
    described = {field.name for field in FIELDS}
    assert described <= set(KernelProfile._fields)
    host = {"name", "release", "version", "machine", "live", "limits", "legacy_layout"}
    live = kernel_profile("live")
    for name in OLDER:
        profile = kernel_profile(name)
        changed = {field for field in KernelProfile._fields if getattr(profile, field) != getattr(live, field)}
        assert changed - described - host - {"vdso_entry_i386"} == set()
        assert all("/" in item.field.file and item.here != item.there for item in profile_differences(profile, live))


@pytest.mark.parametrize("name", OLDER)
def test_the_hosts_numbers_stay_the_hosts(name: str) -> None:
    live, profile = kernel_profile("live"), kernel_profile(name)
    for field in ("hwcap", "hwcap2", "memory_size", "cpu_count", "limits", "mmap_min_addr", "overcommit"):
        assert getattr(profile, field) == getattr(live, field)
    assert not profile.live and profile.release.startswith(name.partition("-")[0])


# Entries since: AT_RSEQ_* 6.3 (fs/binfmt_elf.c), AT_MINSIGSTKSZ 5.14 (arch/x86/include/asm/elf.h).
@pytest.mark.parametrize(("name", "count"), [("6.12", 22), ("6.6", 22), ("6.1", 20), ("5.10", 19), ("4.19", 19)])
def test_auxiliary_vectors(name: str, count: int) -> None:
    found = names(image_of(name, "/bin/true"))
    assert len(found) == count and found[0] == "AT_SYSINFO_EHDR"
    assert ("AT_RSEQ_ALIGN" in found) == (count == 22)
    assert ("AT_MINSIGSTKSZ" in found) == (count >= 20)
    assert "AT_HWCAP3" not in found  # since 6.9 for those who define it; x86 does not
    assert found[-3:] != found[-3:-1] and "AT_EXECFN" in found


# arch/x86/entry/vdso/vdso-layout.lds.S: pages of [vvar]; [vvar_vclock] apart since 6.13.
@pytest.mark.parametrize(("name", "pages"), [("6.12", 4), ("6.6", 4), ("6.1", 4), ("5.10", 4), ("4.19", 3)])
def test_special_mappings(name: str, pages: int) -> None:
    lines = parse_maps(image_of(name, "/bin/true").space.render_maps())
    own = [(line.path, line.end - line.start) for line in lines if line.path.startswith("[v")]
    assert own[:2] == [("[vvar]", pages * 4096), ("[vdso]", 0x2000)]
    assert lines[-1].path == "[vsyscall]" and lines[-1].perms == ("r-xp" if name == "4.19" else "--xp")


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("6.12", BRK_RANDOMIZED),
        ("6.6", BRK_RANDOMIZED),
        ("6.1", BRK_ALWAYS),
        ("5.10", BRK_RANDOMIZED),
        ("4.19", BRK_NEVER),
    ],
)
def test_break_of_a_static_pie(compiled: Compiler, name: str, rule: int) -> None:
    assert kernel_profile(name).loader_brk == rule
    image = image_of(name, compiled(HELLO, "static-pie"))
    behind = (image.plan.brk + image.bias + 4095) & -4096
    assert image.brk == (0x5555_5555_5000 if rule == BRK_ALWAYS else behind)


@pytest.mark.parametrize("name", OLDER[:5])
def test_position_independent_programs_have_one_base(name: str) -> None:
    """ELF_ET_DYN_BASE is two thirds of the address space in all of them; p_align counts since 5.10."""
    assert image_of(name, "/bin/true").bias == 0x5555_5555_4000


@pytest.mark.parametrize(("name", "counts"), [("6.12", True), ("6.6", False), ("6.1", True), ("4.19", False)])
def test_alignment_of_a_static_pie(tmp_path: Path, name: str, counts: bool) -> None:
    image = image_of(name, made(tmp_path, static_pie_program()))
    assert (image.bias % (2 << 20) == 0) == counts


@pytest.mark.parametrize(("name", "count"), [("6.1", 1), ("5.10", 0), ("4.19", 0)])
def test_an_empty_argv(name: str, count: int) -> None:
    """fs/exec.c: one empty string is put there since 5.18."""
    assert image_of(name, "/bin/true", []).stack.arguments.argument_count == count


@pytest.mark.parametrize(("name", "longest"), [("6.1", 256), ("5.10", 256), ("4.19", 128), ("2.6.32-i386", 128)])
def test_how_much_of_a_script_is_read(name: str, longest: int) -> None:
    assert kernel_profile(name).buffer_size == longest


def test_a_long_first_line_is_cut_by_a_small_buffer(tmp_path: Path) -> None:
    line = b"#!" + b"/" * 140 + b"bin/true\n"
    path = made(tmp_path, line)
    assert image_of("6.1", path).program.path.endswith("true")
    with pytest.raises(LinuxError):
        image_of("4.19", path)


def test_program_headers_may_fill_a_page_only_before_6_15(tmp_path: Path) -> None:
    entry = struct.pack("<IIQQQQQQ", 1, 5, 0, 0x400000, 0, 4096, 4096, 4096)
    headers = entry + bytes(56) * 99  # PT_NULL
    head = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    head += struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, 0x400000, 64, 0, 0, 64, 56, 100, 0, 0, 0)
    path = made(tmp_path, (head + headers).ljust(8192, b"\0"))
    assert image_of("live", path).plan.header.phnum == 100
    with pytest.raises(LinuxError) as refused:
        image_of("6.12", path)
    assert refused.value.errno == errno.ENOEXEC


def test_the_32_bit_kernel(tmp_path: Path) -> None:
    """3 GiB for programs: the addresses that textbooks show."""
    image = image_of("2.6.32-i386", made(tmp_path, fixed_i386_program()))
    lines = {line.path.rpartition("/")[2]: line for line in parse_maps(image.space.render_maps())}
    assert lines.keys() == {"program", "[vdso]", "[stack]"}
    assert lines["program"].start == 0x0804_8000
    assert (lines["[vdso]"].start, lines["[vdso]"].end) == (0xB7FF_F000, 0xB800_0000)
    assert lines["[stack]"].end == 0xC000_0000
    assert lines["[stack]"].end - lines["[stack]"].start == 21 * 4096  # the strings' page and EXTRA_STACK_VM_PAGES
    assert names(image)[:3] == ["AT_SYSINFO", "AT_SYSINFO_EHDR", "AT_HWCAP"] and "AT_HWCAP2" not in names(image)
    assert (image.registers["cs"], image.registers["ss"]) == (0x73, 0x7B)
    with pytest.raises(LinuxError) as refused:
        image_of("2.6.32-i386", "/bin/true")
    assert refused.value.errno == errno.ENOEXEC


def test_no_stack_limit_means_bottom_up_in_the_32_bit_kernel(tmp_path: Path) -> None:
    profile = kernel_profile("2.6.32-i386")
    with Machine(profile=profile, memory=64 << 20, stack_limit=(1 << 64) - 1) as machine:
        image = machine.prepare(made(tmp_path, fixed_i386_program()))
        lines = {line.path: line.start for line in parse_maps(image.space.render_maps())}
    assert lines["[vdso]"] == 0x4000_0000  # TASK_UNMAPPED_BASE, a third of 3 GiB


def test_its_position_independent_programs_are_where_mmap_puts_them(tmp_path: Path) -> None:
    data = bytearray(fixed_i386_program())
    data[16:18] = (3).to_bytes(2, "little")  # ET_DYN
    image = image_of("2.6.32-i386", made(tmp_path, bytes(data)))
    first = next(line for line in parse_maps(image.space.render_maps()) if line.path.endswith("program"))
    assert first.end == 0xB800_0000

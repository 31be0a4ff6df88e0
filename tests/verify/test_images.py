"""`verify` on one program: our image beside the kernel's, for every way to link, every limit, every argument."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from loadstone.linux.profile import RLIM_INFINITY, KernelProfile, Special, live_profile
from loadstone.verify.runner import DIFFERS, IDENTICAL, REFUSED_ALIKE, Request, Result, Verifier
from loadstone.verify.variants import hostile
from support.compilers import Compiler

HELLO = '#include <stdio.h>\nint main(void) { puts("hello"); return 0; }\n'
BSS = "#include <stdio.h>\nchar big[300000]; int filled[2000] = {1, 2}; int main(void) { return big[5] + filled[1]; }\n"
DATA = "const char text[3 << 20] = {1}; char data[5 << 20] = {2}; int main(void) { return text[9] + data[9]; }\n"
BARE = "int zeros[5000]; int ones[3] = {1}; void _start(void) { for (;;) ones[1] += zeros[0]; }\n"
ENVIRONMENT = (b"HOME=/home/user", b"PATH=/usr/bin")
SMALL = 256 << 10


@pytest.fixture(scope="module")
def verifier() -> Iterator[Verifier]:
    with Verifier(keep_images=True) as made:
        yield made


def identical(result: Result) -> Result:
    assert (result.outcome, result.differences, result.why) == (IDENTICAL, (), ""), result.request
    return result


def check(verifier: Verifier, path: str, *argv: bytes) -> Result:
    return identical(verifier.verify(Request(path, argv or (b"program", b"argument"), ENVIRONMENT)))


def i386(directory: Path, *options: str, text: str = BARE) -> str:
    """A 32-bit program, or a skipped test where none can be linked or run."""
    source, path = directory / "i386.c", directory / "i386"
    source.write_text(text)
    line = ["gcc", "-m32", "-nostdlib", "-o", str(path), str(source), *options]
    if shutil.which("gcc") is None or subprocess.run(line, capture_output=True, check=False).returncode:
        pytest.skip("gcc -m32 does not link here")
    if not os.path.exists("/proc/sys/abi/vsyscall32"):
        pytest.skip("this kernel runs no 32-bit programs")
    return str(path)


@pytest.mark.parametrize(
    "variant", ["pie", "no-pie", "static", "static-pie", "noseparate-code", "musl", "musl-static", "musl-static-pie"]
)
def test_every_way_to_link(verifier: Verifier, compiled: Compiler, variant: str) -> None:
    check(verifier, compiled(BSS, variant))


@pytest.mark.parametrize("variant", ["pie", "no-pie", "static", "static-pie"])
@pytest.mark.parametrize("align", [2 << 20, 1 << 30], ids=["2 MiB", "1 GiB"])
def test_large_alignments(verifier: Verifier, compiled: Compiler, tmp_path: Path, variant: str, align: int) -> None:
    """Linked for 2 MiB; 1 GiB, for which no C library links, is written into the program headers."""
    path = tmp_path / "aligned"
    data = bytearray(Path(compiled(BSS, variant, "-Wl,-z,max-page-size=0x200000")).read_bytes())
    headers = int.from_bytes(data[32:40], "little")
    for at in range(headers, headers + 56 * int.from_bytes(data[56:58], "little"), 56):
        if data[at : at + 4] == (1).to_bytes(4, "little"):
            data[at + 48 : at + 56] = align.to_bytes(8, "little")
    path.write_bytes(data)
    path.chmod(0o755)
    result = verifier.verify(Request(str(path), (b"x",)))
    assert result.passed, result.differences  # a program that begins below mmap_min_addr is refused by both
    if variant in ("pie", "static-pie"):
        assert result.images is not None
        first = next(line for line in result.images[1].maps.splitlines() if line.endswith(str(path)))
        assert int(first.partition("-")[0], 16) % align == 0


@pytest.mark.parametrize("variant", ["pie", "static"])
def test_executable_stacks(verifier: Verifier, compiled: Compiler, variant: str) -> None:
    result = check(verifier, compiled(HELLO, variant, "-Wl,-z,execstack"))
    assert result.images is not None
    assert any(line.endswith("[stack]") and " rwxp " in line for line in result.images[1].maps.splitlines())


def test_gnu_properties(verifier: Verifier, compiled: Compiler) -> None:
    path = compiled(HELLO, "pie", "-fcf-protection=full", "-Wl,-z,ibt,-z,shstk")
    headers = subprocess.run(["readelf", "-lW", path], capture_output=True, text=True, check=True).stdout
    assert "GNU_PROPERTY" in headers
    check(verifier, path)


@pytest.mark.parametrize(
    "options",
    [("-static", "-fno-pie", "-no-pie"), ("-static-pie", "-fPIE"), ("-pie", "-fPIE", "-Wl,-dynamic-linker,{linker}")],
    ids=["static", "static PIE", "dynamic"],
)
@pytest.mark.parametrize("limit", [None, SMALL, RLIM_INFINITY], ids=["as here", "small", "unlimited"])
def test_32_bit_programs(tmp_path: Path, options: tuple[str, ...], limit: int | None) -> None:
    """The dynamic one has another 32-bit program for an interpreter: there is no 32-bit C library here."""
    (tmp_path / "linker").mkdir()
    linker = i386(tmp_path / "linker", "-shared", "-fPIC", text="void _start(void) { for (;;); }\n")
    os.chmod(linker, 0o755)
    path = i386(tmp_path, *(option.format(linker=linker) for option in options))
    with Verifier(stack_limit=limit) as verifier:
        result = identical(verifier.verify(Request(path, (b"a", b"bc"), ENVIRONMENT)))
    assert result.kind.startswith("ELF32")


def test_no_gnu_stack_makes_32_bit_programs_read_implies_exec(verifier: Verifier, tmp_path: Path) -> None:
    path = Path(i386(tmp_path, "-static", "-fno-pie", "-no-pie"))
    data = bytearray(path.read_bytes())
    start, count = int.from_bytes(data[28:32], "little"), int.from_bytes(data[44:46], "little")
    for at in range(start, start + 32 * count, 32):
        if data[at : at + 4] == (0x6474E551).to_bytes(4, "little"):
            data[at : at + 4] = bytes(4)  # PT_GNU_STACK becomes PT_NULL
    path.write_bytes(data)
    result = check(verifier, str(path))
    assert result.images is not None
    assert all(" r--p " not in line for line in result.images[0].maps.splitlines() if str(path) in line)


@pytest.mark.parametrize("limit", [SMALL, 1 << 20, 8 << 20, 200 << 20, 1 << 40, RLIM_INFINITY])
def test_stack_limits(compiled: Compiler, limit: int) -> None:
    with Verifier(stack_limit=limit) as verifier:
        for path in ("/bin/ls", compiled(BSS, "static"), compiled(BSS, "static-pie")):
            identical(verifier.verify(Request(path, (b"x", b"y" * 900), ENVIRONMENT)))


@pytest.mark.parametrize("variant", ["pie", "static"])
def test_hostile_arguments(verifier: Verifier, compiled: Compiler, variant: str) -> None:
    labels = []
    for request in hostile(Request(compiled(HELLO, variant), (b"program",), ENVIRONMENT)):
        identical(verifier.verify(request))
        labels.append(request.label)
    assert {"empty argv", "1 MiB of arguments", "bytes that are not UTF-8"} < set(labels)
    assert len(labels) == 24


def test_too_many_arguments_are_refused_alike() -> None:
    with Verifier(stack_limit=SMALL) as verifier:
        results = [verifier.verify(request) for request in hostile(Request("/bin/true", (b"x",)))]
    assert {result.outcome for result in results} == {IDENTICAL, REFUSED_ALIKE}
    (refused,) = (result for result in results if result.outcome == REFUSED_ALIKE)
    assert refused.request.label == "1 MiB of arguments" and refused.why.startswith("E2BIG")


def test_scripts(verifier: Verifier, tmp_path: Path) -> None:
    inner, outer = tmp_path / "inner", tmp_path / "outer"
    inner.write_bytes(b"#!/bin/sh -e\n")
    outer.write_bytes(b"#! " + os.fsencode(inner) + b" one two \n")
    for path in (inner, outer):
        path.chmod(0o755)
        assert check(verifier, str(path), b"a" * 50, b"b").kind == "script, ELF64 PIE, dynamic"


def test_what_both_refuse(verifier: Verifier, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("hello\n")
    (tmp_path / "text").chmod(0o755)
    (tmp_path / "lost").write_text("#!/nowhere/at/all\n")
    (tmp_path / "lost").chmod(0o755)
    for name, errno in (("text", "ENOEXEC"), ("lost", "ENOENT"), ("absent", "ENOENT"), (".", "EACCES")):
        result = verifier.verify(Request(str(tmp_path / name), (b"x",)))
        assert (result.outcome, result.why.partition(":")[0]) == (REFUSED_ALIKE, errno)


@pytest.mark.parametrize("mode", [0o4755, 0o2755, 0o6755], ids=oct)
@pytest.mark.parametrize("variant", ["pie", "no-pie", "static", "static-pie"])
def test_set_id_files_are_compared_with_the_kernels_own_draws(
    verifier: Verifier, compiled: Compiler, tmp_path: Path, variant: str, mode: int
) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root to make a file of another user")
    path = tmp_path / "set-id"
    shutil.copyfile(compiled(BSS, variant), path)
    os.chown(path, 12345, 54321)
    path.chmod(mode)
    seen = set()
    for length in range(8):
        result = check(verifier, str(path), b"x" * length, b"y")
        assert result.draws is not None and "random addresses" in [item.what for item in result.must_differ]
        assert (result.draws.program is not None) == (variant == "pie")
        seen.add(result.draws)
    assert len(seen) == 8  # the kernel draws anew each time


@pytest.mark.slow
def test_a_set_id_static_pie_whose_vdso_finds_no_room_above_it(compiled: Compiler, tmp_path: Path) -> None:
    """One exec in a hundred leaves less room between program and mmap base than the vDSO takes."""
    path = tmp_path / "set-id"
    shutil.copyfile(compiled(DATA, "static-pie"), path)
    path.chmod(0o4755)
    if os.geteuid() != 0:
        pytest.skip("the kernel ignores set-user-ID when another user than root traces")
    with Verifier() as verifier:
        for _ in range(1000):
            identical(verifier.verify(Request(str(path), (b"x",))))


@pytest.mark.parametrize("limit", [SMALL, 64 << 20, RLIM_INFINITY], ids=["small", "64 MiB", "unlimited"])
@pytest.mark.parametrize("variant", ["pie", "static", "static-pie"])
def test_set_id_files_under_other_stack_limits(compiled: Compiler, tmp_path: Path, variant: str, limit: int) -> None:
    """The file is the caller's own, so nothing makes it secure, and the limit stays as it is."""
    path = tmp_path / "set-id"
    shutil.copyfile(compiled(DATA, variant), path)
    path.chmod(0o4755)
    if os.geteuid() != 0:
        pytest.skip("the kernel ignores set-user-ID when another user than root traces")
    with Verifier(stack_limit=limit) as verifier:
        for _ in range(4):
            identical(verifier.verify(Request(str(path), (b"x",))))


def test_what_must_differ_is_named(verifier: Verifier) -> None:
    named = {item.what: item.reason for item in check(verifier, "/bin/true").must_differ}
    assert named.keys() >= {"AT_RANDOM bytes", "process id"}
    assert all(len(reason) > 20 for reason in named.values())


def test_no_file_is_changed(verifier: Verifier, tmp_path: Path) -> None:
    path = tmp_path / "program"
    shutil.copyfile("/bin/true", path)
    path.chmod(0o755)
    before = path.stat()
    check(verifier, str(path))
    after = path.stat()
    assert (before.st_mtime_ns, before.st_ctime_ns, before.st_size) == (
        after.st_mtime_ns,
        after.st_ctime_ns,
        after.st_size,
    )
    assert os.listdir(tmp_path) == ["program"]
    assert path.read_bytes() == Path("/bin/true").read_bytes()


# What is wrong with a kernel's model -> the class of what differs, and the function that the report points to.
WRONG: dict[str, tuple[dict[str, object], str, str]] = {
    "hwcap": ({"hwcap": 1}, "AT_HWCAP", "ELF_HWCAP"),
    "clock": ({"clock_ticks": 250}, "AT_CLKTCK", "create_elf_tables"),
    "signal stack": ({"minimum_signal_stack": 77}, "AT_MINSIGSTKSZ", "get_sigframe_size"),
    "an entry less": ({"auxv": live_profile().auxv[:-1]}, "stack pointer", "create_elf_tables"),
    "order": ({"auxv": tuple(reversed(live_profile().auxv))}, "order of the auxiliary vector", "create_elf_tables"),
    "stack room": ({"stack_expand": 64 << 10}, "mapping [stack]", "setup_arg_pages"),
    "vvar": ({"special": (Special("[vvar]", 0x9000), Special("[vdso]", 0x2000))}, "mapping [vvar]", "map_vdso"),
    "platform": ({"platform": "y86_64"}, "AT_PLATFORM string", "create_elf_tables"),
    "task size": ({"task_size": 0x7FFF_FFFE_F000}, "stack top", "setup_arg_pages"),
    "vsyscall": ({"vsyscall": ""}, "mapping [vsyscall]", "get_gate_vma"),
}


@pytest.mark.parametrize("name", WRONG)
def test_every_class_of_mismatch_is_found_and_explained(name: str) -> None:
    changes, what, function = WRONG[name]
    profile: KernelProfile = live_profile()._replace(**changes)
    with Verifier(profile) as verifier:
        result = verifier.verify(Request("/bin/true", (b"true",), ENVIRONMENT))
    assert result.outcome == DIFFERS
    found = [item for item in result.differences if item.what.endswith(what)]
    assert found and found[0].origin.function == function, [item.what for item in result.differences]
    assert found[0].ours != found[0].kernel


def test_every_byte_of_the_stack_counts(verifier: Verifier) -> None:
    """Whatever byte of the kernel's stack is another one, the comparison says which item it is in."""
    from loadstone.api import Machine
    from loadstone.verify.image import compare, facts_of_image

    with Machine() as machine:
        image = machine.prepare("/bin/true", ["true"], ["A=1"])
        ours, layout = facts_of_image(image, host_vdso=False), image.stack.layout()
        for place in range(len(ours.stack)):
            stack = bytearray(ours.stack)
            stack[place] ^= 0x55
            found = compare(ours, ours._replace(stack=bytes(stack)), layout, "/bin/true", "")
            word = next(
                word for word in layout if word.address <= ours.stack_pointer + place < word.address + word.size
            )
            if word.what == "AT_RANDOM bytes":
                assert not found.differences and found.must_differ[0].what == word.what
            else:
                assert [item.what for item in found.differences] == [f"stack {word.address:#x}: {word.what}"]

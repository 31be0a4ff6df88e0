"""execve against the real kernel: maps, auxiliary vector, stack bytes, registers, errno. No instruction is run."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from loadstone.errors import LinuxError
from loadstone.events import Events, Fault
from loadstone.linux.exec.execve import Stage
from loadstone.linux.exec.new_image import ExecImage
from loadstone.verify.native import NativeImage, native_image
from loadstone.verify.native_exec import NativeFailure
from support.compilers import Compiler
from support.exec_world import HostWorld, user_memory
from support.kernel_faults import exec_faults

HELLO = '#include <stdio.h>\nint main(void) { puts("hello"); return 0; }\n'
BSS = "#include <stdio.h>\nchar big[300000]; int filled[2000] = {1, 2}; int main(void) { return big[5] + filled[1]; }\n"
DATA = "const char text[3 << 20] = {1}; char data[5 << 20] = {2}; int main(void) { return text[9] + data[9]; }\n"
ENVIRONMENT = [b"HOME=/home/user", b"PATH=/usr/bin"]


@pytest.fixture
def world() -> Iterator[HostWorld]:
    here = HostWorld()
    yield here
    here.close()


def same(
    world: HostWorld,
    path: str,
    argv: Sequence[bytes],
    envp: Sequence[bytes],
    *,
    cwd: str | None = None,
    stack_limit: int | None = None,
) -> tuple[ExecImage, NativeImage]:
    """Both images, after comparing everything that can be compared."""
    native = native_image(path, argv, envp, cwd=cwd, stack_limit=stack_limit)
    image = world.exec(path, argv, envp)
    assert image.space.render_maps() == native.maps
    assert image.auxv == native.auxiliary_vector
    assert hex(image.pointer) == hex(native.stack_pointer)
    stack, expected = bytearray(image.stack.bytes), bytearray(native.stack)
    random = image.stack.random_address - image.pointer
    assert stack[random : random + 16] == bytes(range(1, 17))
    stack[random : random + 16] = expected[random : random + 16] = bytes(16)
    assert stack == expected
    registers = dict(native.registers)
    del registers["orig_rax"]
    assert image.registers == registers
    assert image.name == native.name
    for key in ("start_code", "end_code", "start_data", "end_data"):
        assert (key, getattr(image, key)) == (key, native.stat[key])
    assert image.brk == image.space.start_brk == image.space.brk == native.stat["start_brk"]
    assert image.space.start_stack == native.stat["start_stack"]
    ours = image.stack
    areas = (ours.argument_start, ours.argument_end, ours.environment_start, ours.environment_end)
    assert areas == tuple(native.stat[key] for key in ("arg_start", "arg_end", "env_start", "env_end"))
    assert user_memory(image, image.pointer, len(ours.bytes)) == ours.bytes
    return image, native


def same_verdict(world: HostWorld, path: str) -> None:
    """The same failure after the point of no return (an address below mmap_min_addr, say), or the same image."""
    try:
        native_image(path, [b"x"], [])
    except NativeFailure as failure:
        with pytest.raises(LinuxError) as error:
            world.exec(path, [b"x"], [])
        assert (error.value.fatal_signal or 0) == failure.signal
        return
    same(world, path, [b"x"], [])


@pytest.mark.parametrize(
    "path",
    ["/bin/true", "/bin/ls", "/usr/bin/python3", "/bin/bash", "/lib64/ld-linux-x86-64.so.2", "/bin/busybox"],
)
def test_programs_of_the_host(world: HostWorld, path: str) -> None:
    if not os.path.exists(path):
        pytest.skip(f"{path} is not installed")
    same(world, path, [path.encode(), b"-l", b"/usr/bin"], ENVIRONMENT)


@pytest.mark.parametrize(
    "variant",
    ["pie", "no-pie", "static", "static-pie", "noseparate-code", "musl", "musl-static", "musl-static-pie"],
)
@pytest.mark.parametrize("text", [HELLO, BSS, DATA], ids=["hello", "bss", "data"])
def test_programs_linked_in_every_way(world: HostWorld, compiled: Compiler, variant: str, text: str) -> None:
    path = compiled(text, variant)
    same(world, path, [b"prog", b"123"], ENVIRONMENT)


@pytest.mark.parametrize("variant", ["pie", "no-pie", "static", "static-pie"])
@pytest.mark.parametrize("size", ["0x10000", "0x200000", "0x4000000"])
def test_big_alignments(world: HostWorld, compiled: Compiler, variant: str, size: str) -> None:
    path = compiled(BSS, variant, f"-Wl,-z,max-page-size={size}", "-Wl,-z,common-page-size=0x1000")
    same_verdict(world, path)


@pytest.mark.parametrize("variant", ["pie", "static"])
def test_executable_stack(world: HostWorld, compiled: Compiler, variant: str) -> None:
    path = compiled(HELLO, variant, "-Wl,-z,execstack")
    image, _ = same(world, path, [b"x"], [])
    assert any(vma.perms == "rwxp" for vma in image.space.vmas)


ARGUMENTS = {
    "none": ([], []),
    "empty": ([b""], [b""]),
    "no environment": ([b"a", b"b"], []),
    "empty argv, environment": ([], [b"A=1"]),
    "thousand": ([b"arg%d" % n for n in range(1000)], [b"V%d=%d" % (n, n) for n in range(300)]),
    "not utf-8": ([b"\xff\xfe", "ä☃".encode(), b"\x80"], [b"\xc3(=\xff"]),
    "long": ([b"x" * 131071], [b"L=" + b"y" * 100000]),
    "a page": ([b"p" * 4095], [b"q" * 4096, b"r" * 4097]),
    "several pages": ([b"%d" % n * 500 for n in range(60)], [b"e" * 3000] * 20),
}


@pytest.mark.parametrize("name", ARGUMENTS)
@pytest.mark.parametrize("path", ["/bin/true", "/bin/ls"])
def test_arguments(world: HostWorld, name: str, path: str) -> None:
    argv, envp = ARGUMENTS[name]
    image, native = same(world, path, argv, envp)
    assert native.argv() == (argv or [b""])
    assert image.stack.arguments.strings() == [*(argv or [b""]), *envp]


@pytest.mark.parametrize("length", range(17))
def test_every_alignment_of_the_strings(world: HostWorld, length: int) -> None:
    same(world, "/bin/true", [b"t" * length], [b"E=1"] * (length % 3))


LIMITS = [
    -1,
    0,
    4096,
    12 << 12,
    33 << 12,
    160000,
    1 << 20,
    8 << 20,
    64 << 20,
    200 << 20,
    1 << 40,
    100 << 40,
    (1 << 63) - 1,
]


@pytest.mark.parametrize("limit", LIMITS)
def test_stack_limits(limit: int) -> None:
    world = HostWorld(stack_limit=limit)
    try:
        native = native_image("/bin/true", [b"true", b"x" * 900], [], stack_limit=limit)
    except NativeFailure as failure:
        with pytest.raises(LinuxError) as error:
            world.exec("/bin/true", [b"true", b"x" * 900], [])
        if failure.signal:
            assert error.value.fatal_signal == failure.signal
        else:
            assert (error.value.errno, error.value.fatal_signal) == (failure.errno, None)
        return
    assert native.bits == 64
    same(world, "/bin/true", [b"true", b"x" * 900], [], stack_limit=limit)
    world.close()


@pytest.mark.parametrize("limit", [8192, 1 << 20, 8 << 20, -1])
@pytest.mark.parametrize("count", [100, 124, 130, 131, 250, 1000, 3000])
def test_how_much_fits(limit: int, count: int) -> None:
    argv = [b"x" * 1023] * count
    world = HostWorld(stack_limit=limit)
    verdicts = []
    try:
        native_image("/bin/true", argv, [], stack_limit=limit)
        verdicts.append(0)
    except NativeFailure as failure:
        verdicts.append(failure.errno or -failure.signal)
    try:
        world.exec("/bin/true", argv, [])
        verdicts.append(0)
    except LinuxError as error:
        verdicts.append(-error.fatal_signal if error.fatal_signal else error.errno)
    world.close()
    assert verdicts[0] == verdicts[1]


def test_argument_too_long(world: HostWorld) -> None:
    for argv in ([b"x" * 131072], [b"x" * 200000]):
        with pytest.raises(NativeFailure) as native:
            native_image("/bin/true", argv, [])
        with pytest.raises(LinuxError) as ours:
            world.exec("/bin/true", argv, [])
        assert ours.value.errno == native.value.errno == errno.E2BIG


def script(directory: Path, name: str, text: bytes, mode: int = 0o755) -> str:
    path = directory / name
    path.write_bytes(text)
    path.chmod(mode)
    return str(path)


SCRIPTS = {
    "plain": b"#!/bin/sh\necho hi\n",
    "argument": b"#!/bin/sh -eu\n",
    "blanks": b"#! \t/bin/sh  -a -b\t \n",
    "no newline": b"#!/bin/sh",
    "static": b"#!/bin/busybox sh\n",
    "empty argument": b"#!/bin/sh ",
}


@pytest.mark.parametrize("name", SCRIPTS)
@pytest.mark.parametrize(
    "first", [b"s", b"", b"a long argv[0] that leaves its bytes behind" * 40], ids=["s", "empty", "long"]
)
def test_scripts(world: HostWorld, tmp_path: Path, name: str, first: bytes) -> None:
    if name == "static" and not os.path.exists("/bin/busybox"):
        pytest.skip("busybox is not installed")
    path = script(tmp_path, "script", SCRIPTS[name])
    same(world, path, [first, b"one", b"two"], ENVIRONMENT)


def test_script_without_arguments(world: HostWorld, tmp_path: Path) -> None:
    same(world, script(tmp_path, "script", b"#!/bin/sh\n"), [], [b"A=1"])


@pytest.mark.parametrize("depth", range(1, 8))
def test_scripts_in_a_row(world: HostWorld, tmp_path: Path, depth: int) -> None:
    path = "/bin/true"
    for number in range(depth):
        path = script(tmp_path, f"script{number}", b"#!" + os.fsencode(path) + b" -%d\n" % number)
    try:
        native_image(path, [b"a"], [])
    except NativeFailure as failure:
        with pytest.raises(LinuxError) as error:
            world.exec(path, [b"a"], [])
        assert error.value.errno == failure.errno == errno.ELOOP
    else:
        same(world, path, [b"a"], [])


def test_relative_paths(world: HostWorld, tmp_path: Path) -> None:
    script(tmp_path, "inner", b"#!/bin/sh\n")
    script(tmp_path, "outer", b"#!inner x\n")
    world.cwd = str(tmp_path)
    same(world, "outer", [b"outer"], [], cwd=str(tmp_path))
    same(world, "./outer", [b"outer"], [], cwd=str(tmp_path))


def test_what_cannot_be_executed(world: HostWorld, tmp_path: Path) -> None:
    with open("/bin/true", "rb") as file:
        program = file.read()
    interpreter = program.replace(b"/lib64/ld-linux-x86-64.so.2", b"/lib64/ld-linux-x86-64.so.X")
    cases = [
        str(tmp_path),
        "/dev/null",
        script(tmp_path, "empty", b""),
        script(tmp_path, "text", b"hello\n"),
        script(tmp_path, "not permitted", b"#!/bin/sh\n", 0o644),
        script(tmp_path, "missing interpreter", b"#!/nowhere/sh\n"),
        script(tmp_path, "directory", b"#!/tmp\n"),
        script(tmp_path, "no interpreter", b"#!\n"),
        script(tmp_path, "short", program[:70]),
        script(tmp_path, "no program headers", program[:200]),
        script(tmp_path, "interp missing", interpreter),
        str(tmp_path / "nothing"),
        str(tmp_path / "text" / "below"),
        "",
        "x" * 4096,
    ]
    for path in cases:
        with pytest.raises(NativeFailure) as native:
            native_image(path, [b"x"], [])
        with pytest.raises(LinuxError) as ours:
            world.exec(path, [b"x"], [])
        if native.value.signal:
            assert (path, ours.value.fatal_signal) == (path, native.value.signal)
        else:
            assert (path, ours.value.name, ours.value.fatal_signal) == (path, native.value.name, None)


def test_failure_past_the_point_of_no_return(world: HostWorld, compiled: Compiler, tmp_path: Path) -> None:
    path = compiled(HELLO, "static")
    data = bytearray(Path(path).read_bytes())
    headers = int.from_bytes(data[32:40], "little")
    for at in range(headers, headers + 56 * int.from_bytes(data[56:58], "little"), 56):
        if data[at : at + 4] == b"\1\0\0\0":  # the last PT_LOAD: p_filesz > p_memsz
            last = at
    data[last + 32 : last + 40] = (1 << 40).to_bytes(8, "little")
    bad = script(tmp_path, "bad", bytes(data))
    frames = world.memory.usage()
    with pytest.raises(NativeFailure) as native:
        native_image(bad, [b"x"], [])
    stages: list[Stage] = []
    with pytest.raises(LinuxError) as ours:
        world.exec(bad, [b"x"], [], stages=stages)
    assert ours.value.fatal_signal == native.value.signal == 11
    assert "begin_new_exec" in [stage.function for stage in stages]
    kept = world.memory.usage()
    assert {key: kept[key] for key in kept if key in ("table", "anonymous")} == {
        key: frames[key] for key in frames if key in ("table", "anonymous")
    }


def test_only_what_the_kernel_wrote_is_resident(world: HostWorld, compiled: Compiler) -> None:
    image = world.exec(compiled(BSS, "static"), [b"x"], ENVIRONMENT)
    resident = [(address, image.space.find(address)) for address, _, _ in image.space.page_table.entries(0, 1 << 47)]
    program = [vma for _, vma in resident if vma is not None and vma.backing is not None]
    stack = [vma for _, vma in resident if vma is not None and vma.backing is None]
    assert len(program) == 1 and program[0].perms == "rw-p"  # the page with the tail of .bss
    assert stack and all(vma.end == image.stack.top for vma in stack)
    assert len(resident) == image.space.resident_pages


def test_the_notes_example(world: HostWorld, compiled: Compiler) -> None:
    image, native = same(world, compiled(HELLO, "pie"), [b"prog", b"123"], ENVIRONMENT)
    words = {what: value for _, _, what, value in image.stack.layout()}
    assert words["argc"] == 2
    assert (words["argv[0] string"], words["argv[1] string"]) == ("prog", "123")
    assert (words["envp[0] string"], words["envp[1] string"]) == ("HOME=/home/user", "PATH=/usr/bin")
    at = native.stack.index(b"prog\x00123\0") + native.stack_pointer
    assert (words["argv[0]"], words["argv[1]"]) == (at, at + 5)
    assert words["AT_ENTRY value"] == image.program_entry
    assert sum(word.size for word in image.stack.layout()) == image.stack.top - image.pointer


def test_stages_tell_the_kernels_functions(world: HostWorld) -> None:
    image = world.exec("/bin/true")
    assert [stage.function for stage in image.stages if stage.function != "elf_load"] == [
        "do_open_execat",
        "bprm_mm_init",
        "copy_strings",
        "prepare_binprm",
        "search_binary_handler",
        "load_elf_binary",
        "load_elf_phdrs",
        "open_exec",
        "begin_new_exec",
        "setup_new_exec",
        "setup_arg_pages",
        "load_elf_binary",
        "load_elf_binary",
        "load_elf_interp",
        "arch_setup_additional_pages",
        "create_elf_tables",
        "load_elf_binary",
        "start_thread",
    ]
    steps = [stage.step for stage in image.stages if stage.step]
    assert set(steps) == {1, 2, 3, 4, 5}


def test_set_user_id_programs_are_secure(world: HostWorld, compiled: Compiler, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root to make a file of another user")
    path = tmp_path / "setuid"
    subprocess.run(["cp", compiled(HELLO, "static"), str(path)], check=True)
    os.chown(path, 12345, 54321)
    path.chmod(0o6755)
    native = native_image(str(path), [b"x"], [])
    image = world.exec(str(path), [b"x"], [])
    chosen = {11, 12, 13, 14, 23}  # AT_UID .. AT_SECURE
    assert [pair for pair in image.auxv if pair[0] in chosen] == [
        pair for pair in native.auxiliary_vector if pair[0] in chosen
    ]
    assert (image.credentials.euid, image.credentials.egid, image.secure) == (12345, 54321, True)


@pytest.mark.parametrize("variant", ["pie", "static-pie"])
@pytest.mark.parametrize("align", [0, 1, 3, 0x3000, 1 << 30, 1 << 46, 1 << 47, 1 << 63], ids=hex)
def test_absurd_alignments(world: HostWorld, compiled: Compiler, tmp_path: Path, variant: str, align: int) -> None:
    data = bytearray(Path(compiled(HELLO, variant)).read_bytes())
    headers = int.from_bytes(data[32:40], "little")
    for at in range(headers, headers + 56 * int.from_bytes(data[56:58], "little"), 56):
        if data[at : at + 4] == b"\1\0\0\0":
            data[at + 48 : at + 56] = align.to_bytes(8, "little")
    same_verdict(world, script(tmp_path, "absurd", bytes(data)))


@pytest.mark.slow
def test_all_programs_of_the_host(world: HostWorld) -> None:
    compared = 0
    for entry in sorted(os.scandir("/usr/bin"), key=lambda entry: entry.name):
        if not entry.is_file() or not os.access(entry.path, os.X_OK) or entry.stat().st_mode & 0o6000:
            continue
        image, _ = same(world, entry.path, [b"x"], ENVIRONMENT)
        image.space.release()
        compared += 1
    assert compared > 100


@pytest.mark.parametrize("argv", [[b"a"], [b"x" * 4000] * 3, [b"y" * 3300], [b"z" * 3600]], ids=len)
@pytest.mark.parametrize("program", ["/bin/ls", "pie", "static", "static-pie", "aligned static-pie"])
def test_the_kernels_own_faults(world: HostWorld, compiled: Compiler, program: str, argv: list[bytes]) -> None:
    """What the kernel touches in exec, address by address: tails of .bss, and the stack where it is not yet there."""
    path = program
    if not program.startswith("/"):
        more = ["-Wl,-z,max-page-size=0x200000"] if program.startswith("aligned") else []
        path = compiled(BSS, program.removeprefix("aligned "), *more)
    expected = exec_faults(path, argv, ENVIRONMENT)
    world.events = Events()
    faults: list[Fault] = []
    world.events.subscribe(faults.append, ["fault"])
    world.exec(path, argv, ENVIRONMENT)
    assert [fault.address for fault in faults] == expected
    assert all(fault.mode == "kernel" and fault.access == "write" for fault in faults)


@pytest.mark.parametrize("kind", ["-static", "-static-pie"])
@pytest.mark.parametrize("stack", ["execstack", "noexecstack"])
def test_i386_programs_are_planned_as_the_kernel_maps_them(
    world: HostWorld, tmp_path: Path, kind: str, stack: str
) -> None:
    source, path = tmp_path / "loop.c", str(tmp_path / "loop")
    source.write_text("int zeros[5000]; int ones[3] = {1}; void _start(void) { for (;;) ones[1] += zeros[0]; }\n")
    line = ["gcc", "-m32", "-nostdlib", kind, "-fPIE" if "pie" in kind else "-fno-pie", f"-Wl,-z,{stack}", "-o", path]
    done = subprocess.run([*line, str(source)], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("gcc -m32 does not link here")
    try:
        native = native_image(path, [b"a", b"b"], ENVIRONMENT)
    except NativeFailure as failure:
        pytest.skip(f"the host does not run 32-bit programs: {failure}")
    image = world.exec(path, [b"a", b"b"], ENVIRONMENT)
    registers = {key: value for key, value in native.registers.items() if key in image.registers}
    assert image.space.render_maps() == native.maps
    assert image.registers == {"mxcsr": 0x1F80, **registers}
    assert (image.brk, image.pointer) == (native.stat["start_brk"], native.stack_pointer)
    assert image.auxv[1:] == native.auxiliary_vector[1:]  # AT_SYSINFO comes first and differs from build to build
    assert image.auxv[0][0] == native.auxiliary_vector[0][0] == 32
    vector = 4 * (1 + 3 + 3)
    stack_bytes, expected = bytearray(image.stack.bytes), bytearray(native.stack)
    random = image.stack.random_address - image.pointer
    for start, length in ((vector + 4, 4), (random, 16)):
        stack_bytes[start : start + length] = expected[start : start + length] = bytes(length)
    assert stack_bytes == expected

"""The commands as a user types them: outputs, exit statuses, and what stands on which stream."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import stat
import struct
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest

from loadstone.observe.maps import parse_maps
from loadstone.observe.object_file import read_object
from loadstone.verify.native import native_image
from support.compilers import Compiler
from support.run import ENVIRONMENT, command, loadstone, native, of_unicorn

DYING = r"""
#include <stdlib.h>
#include <string.h>
#include <signal.h>
char data[8] = "\x90";
const char constant[4] = "c";
int deep(int n) { volatile char room[4000]; room[0] = n; return n > 1 << 30 ? 0 : deep(n + 1) + room[0]; }
int main(int argc, char **argv) {
    switch (atoi(argv[1])) {
    case 0: return *(volatile int *)16;
    case 1: *(volatile int *)0x123456789000 = 1; break;
    case 2: *(char *)constant = 1; break;
    case 3: ((void (*)(void))data)(); break;
    case 4: return deep(0);
    case 5: return argc / (argc - 2);
    case 6: __builtin_trap();
    case 7: abort();
    case 8: raise(SIGTERM); break;
    case 9: *(volatile long *)0x8000000000000000 = 1; break;
    case 10: raise(SIGINT); break;
    }
    return 0;
}
"""


@pytest.mark.parametrize(
    ("number", "name", "said"),
    [
        (
            0,
            "SIGSEGV",
            r"^loadstone: SIGSEGV \(SEGV_MAPERR\) reading 0x10 at main\+0x[0-9a-f]+ in .*\(\.text\); nothing",
        ),
        (1, "SIGSEGV", r"SIGSEGV \(SEGV_MAPERR\) writing 0x123456789000 at main\+.*nothing is mapped there$"),
        (2, "SIGSEGV", r"SIGSEGV \(SEGV_ACCERR\) writing 0x[0-9a-f]+ at main\+.*that is constant in .*mapped r--p$"),
        (3, "SIGSEGV", r"SIGSEGV \(SEGV_ACCERR\) executing 0x[0-9a-f]+, that is data in .*mapped rw-p$"),
        (4, "SIGSEGV", r"SIGSEGV \(SEGV_MAPERR\) writing 0x7f[0-9a-f]+ at deep.*below \[stack\], which may not grow"),
        (5, "SIGFPE", r"^loadstone: SIGFPE \(FPE_INTDIV\) at main\+0x"),
        (6, "SIGILL", r"^loadstone: SIGILL \(ILL_ILLOPN\) at main\+0x"),
        (7, "SIGABRT", r"^loadstone: SIGABRT \(SI_TKILL\) at "),
        (8, "SIGTERM", r"^loadstone: SIGTERM \(SI_TKILL\) at "),
        (9, "SIGSEGV", r"^loadstone: SIGSEGV \(SI_KERNEL\) at main\+0x[0-9a-f]+ .*general protection"),
        (10, "SIGINT", r"^$"),
    ],
)
def test_one_line_says_what_killed_it(number: int, name: str, said: str, compiled: Compiler) -> None:
    program = compiled(DYING, "pie")
    got = loadstone("run", program, str(number))
    assert got.status == native(program, str(number)).status == 128 + getattr(signal, name)
    assert got.stdout == b""
    assert re.search(said, got.errors.rstrip("\n")), got.errors
    assert len(got.errors.splitlines()) <= 1


def test_the_symbol_is_where_the_file_has_it(compiled: Compiler) -> None:
    """The distance from main is that of the faulting instruction in the file, as the symbol table has main."""
    program = compiled(DYING, "no-pie")
    got = loadstone("run", program, "6")
    distance = int(re.search(r"main\+(0x[0-9a-f]+)", got.errors).group(1), 16)  # type: ignore[union-attr]
    found = read_object(program)
    assert found is not None
    main = found.symbol_named("main")
    assert main is not None
    offset = found.offset_of(main.address + distance)
    assert Path(program).read_bytes()[offset : offset + 2] == b"\x0f\x0b"  # type: ignore[operator]  # ud2


# -- statuses of what cannot be executed, as bash has them ------------------------------------------------------------


@pytest.fixture
def odd_files(tmp_path: Path) -> Path:
    for name, content, mode in (
        ("plain", b"text", 0o644),
        ("empty", b"", 0o755),
        ("broken", b"\x7fELF but no more", 0o755),
        ("bad-interpreter", b"#!/no/such/interpreter\n", 0o755),
    ):
        (tmp_path / name).write_bytes(content)
        (tmp_path / name).chmod(mode)
    (tmp_path / "directory").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("./plain", 126),
        ("./directory", 126),
        ("./missing", 127),
        ("./broken", 126),
        ("./plain/x", 126),
        ("missing", 127),
    ],
)
def test_statuses_of_what_cannot_be_executed(name: str, status: int, odd_files: Path) -> None:
    got = loadstone("run", name, cwd=odd_files)
    assert got.status == status
    if shutil.which("bash"):
        assert native("/bin/bash", "-c", name, cwd=odd_files).status == status
    assert got.stdout == b""
    assert got.errors.startswith(f"loadstone: {name}: ")
    assert len(got.errors.splitlines()) == 1


def test_a_missing_interpreter_is_named(odd_files: Path) -> None:
    got = loadstone("run", "./bad-interpreter", cwd=odd_files)
    assert got.status == 127
    assert "/no/such/interpreter" in got.errors


# -- run --------------------------------------------------------------------------------------------------------------


def test_options_end_at_program() -> None:
    assert loadstone("run", "/bin/echo", "--stats", "--", "-x").stdout == b"--stats -- -x\n"
    assert loadstone("run", "--", "/bin/echo", "--help").stdout.startswith(b"Usage: /bin/echo")


def test_the_name_is_argv_0() -> None:
    assert loadstone("run", "sh", "-c", "echo $0").stdout == b"sh\n"


def test_stats_go_to_stderr_and_hold_the_run() -> None:
    got = loadstone("run", "--stats", "/bin/echo", "hello")
    assert (got.stdout, got.status) == (b"hello\n", 0)
    for part in ("Mappings at exit", "Page faults", "Frames", "System calls", "page directory", "engine "):
        assert part in got.errors
    calls = int(re.search(r"^ +openat +(\d+)", got.errors, re.MULTILINE).group(1))  # type: ignore[union-attr]
    assert calls >= 2
    assert max(map(len, got.errors.splitlines())) <= 80
    assert "\x1b" not in got.errors


def test_stats_count_the_faults_of_the_record(tmp_path: Path) -> None:
    got = loadstone("run", "--stats", "--record", str(tmp_path / "r"), "/bin/true")
    lines = [json.loads(line) for line in (tmp_path / "r").read_text().splitlines()]
    faults = [line for line in lines[1:] if line["event"] == "fault"]
    table = got.errors.partition("Page faults")[2].partition("Frames")[0]
    numbers = re.search(r"^ +total +(.*)$", table, re.MULTILINE).group(1).split()  # type: ignore[union-attr]
    assert sum(map(int, numbers[: len(numbers) - 5])) == len(faults) == int(numbers[-5])
    assert int(numbers[-1]) == sum(line["around"] for line in faults)
    calls = [line for line in lines[1:] if line["event"] == "syscall"]
    assert re.search(rf"^ +total +{len(calls)} ", got.errors.partition("System calls")[2], re.MULTILINE)


def test_record_follows_the_schema(tmp_path: Path) -> None:
    record = tmp_path / "run.jsonl"
    got = loadstone("run", "--deterministic", "--record", str(record), "/bin/echo", "x", cwd=tmp_path)
    assert got.stdout == b"x\n"
    header, *lines = [json.loads(line) for line in record.read_text().splitlines()]
    assert header["schema"] == "loadstone/events/1"
    keys = {"version", "command", "environment", "cwd", "engine", "cpu", "kernel", "fault_around", "page_cache", "seed"}
    assert keys | {"terminal", "cpu_count", "memory"} <= set(header)
    assert header["command"] == ["/bin/echo", "x"]
    assert header["environment"] == [f"{name}={value}" for name, value in ENVIRONMENT.items()]
    assert header["cwd"] == str(tmp_path)
    assert [line["seq"] for line in lines] == list(range(len(lines)))
    assert {"exec", "map", "fault", "syscall", "exit"} <= {line["event"] for line in lines}
    assert all({"event", "seq", "pid", "tid", "cpu"} <= set(line) for line in lines)
    assert lines[-1]["event"] == "exit"
    assert lines[-1]["status"] == 0


def test_trace_to_a_file_leaves_stderr_alone(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    got = loadstone("run", "--trace", "syscall,fault,map,exec", "-o", str(trace), "/bin/cat", "/etc/hostname")
    assert got.stderr == b""
    lines = trace.read_text().splitlines()
    assert any(re.match(r'openat\(AT_FDCWD, "/etc/hostname", O_RDONLY.*\) = \d+$', line) for line in lines)
    assert any(re.match(r"fault +(read|write|execute) +7f[0-9a-f]+ +file, minor", line) for line in lines)
    assert any(re.match(r"map +[0-9a-f]+-[0-9a-f]+ r-xp 0x[0-9a-f]+ /", line) for line in lines)
    assert any("load_elf_binary" in line for line in lines if line.startswith("exec "))
    assert lines[-1] == "+++ exited with 0 +++"


def test_trace_to_stderr() -> None:
    got = loadstone("run", "--trace", "syscall", "/bin/echo", "hi")
    assert got.stdout == b"hi\n"
    assert 'write(1, "hi\\n", 3) = 3' in got.errors.splitlines()


def test_timeout_is_124() -> None:
    got = loadstone("run", "--timeout", "0.3", "/bin/sleep", "50")
    assert got.status == 124
    assert "--timeout" in got.errors


def test_untrusted_sees_its_libraries_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    got = loadstone("run", "--untrusted", "/bin/cat", str(tmp_path / "secret"))
    assert got.status == 1
    assert b"secret\n" not in got.stdout
    assert "No such file" in got.errors
    assert loadstone("run", "--untrusted", "/usr/bin/env").stdout == b""
    assert loadstone("run", "--untrusted", "--env", "A=1", "/usr/bin/env").stdout == b"A=1\n"


@pytest.mark.parametrize("env", [{}, {"PATH": "/usr/bin"}, {"LC_CTYPE": "C.UTF-8", "A": ""}, {"B": "2", "LC_ALL": "C"}])
def test_the_environment_is_what_loadstone_was_given(env: dict[str, str]) -> None:
    """Python adds LC_CTYPE to its own in the C locale; the program must not see it."""
    assert loadstone("run", "/usr/bin/env", env=env).stdout == native("/usr/bin/env", env=env).stdout


def test_cwd_and_bind(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("bound")
    assert loadstone("run", "--cwd", str(tmp_path), "/bin/pwd").text == f"{tmp_path}\n"
    assert loadstone("run", "--bind", f"{tmp_path}:/mnt", "/bin/cat", "/mnt/file").stdout == b"bound"


@pytest.mark.parametrize("command_name", ["run", "explain", "maps"])
def test_a_cwd_that_is_none_is_our_own_failure(command_name: str, tmp_path: Path) -> None:
    for directory, why in ((tmp_path / "missing", "No such file"), (Path("/etc/passwd"), "Not a directory")):
        got = loadstone(command_name, "--cwd", str(directory), "/bin/true")
        assert (got.status, got.stdout) == (125, b"")
        assert got.errors.startswith(f"loadstone: --cwd {directory}: {why}")
        assert len(got.errors.splitlines()) == 1


def test_a_working_directory_that_was_removed_is_no_obstacle(tmp_path: Path) -> None:
    line = f"cd '{tmp_path}'; mkdir gone; cd gone; rmdir ../gone; {' '.join(command('run', '/bin/pwd'))}"
    done = subprocess.run(["/bin/bash", "-c", line], capture_output=True, env=dict(ENVIRONMENT), check=False)
    assert (done.stdout, done.returncode) == (b"/\n", 0), done.stderr


@pytest.mark.parametrize(
    ("limit", "problem"),
    [
        ("ulimit -v 300000", "no memory left"),
        ("ulimit -n 9", "no more descriptors"),
        ("ulimit -f 1", "no file of that size"),
    ],
)
def test_a_limit_of_the_host_is_no_bug(limit: str, problem: str) -> None:
    line = f"{limit}; exec {' '.join(command('run', *of_unicorn(), '/bin/true'))}"
    done = subprocess.run(["/bin/bash", "-c", line], capture_output=True, env=dict(ENVIRONMENT), check=False)
    assert done.returncode == 125, done.stderr
    assert problem in done.stderr.decode() and b"bug" not in done.stderr


def test_discarded_writes_name_the_option_that_keeps_them(tmp_path: Path) -> None:
    got = loadstone("run", "/bin/sh", "-c", "echo text > new", cwd=tmp_path)
    assert got.status == 0
    assert re.search(r"^loadstone: discarded .*new \(5 bytes\); keep with --rw ", got.errors, re.MULTILINE)
    assert os.listdir(tmp_path) == []


# -- explain ----------------------------------------------------------------------------------------------------------


def test_explain_tells_the_story() -> None:
    got = loadstone("explain", "/bin/ls", "-l")
    assert got.status == 0, got.errors
    text = got.text
    for part in (
        "three steps", "five steps of load_elf_binary", "search_binary_handler", "begin_new_exec", "start_thread",
        "Segments", "sections", "From segment to VMA", "What .bss costs", "The initial stack", "AT_PHDR (3)", "rdx",
        "GNU_RELRO", "argv[1]", "'-l'", "[vdso]",
    ):  # fmt: skip
        assert part in text, part
    assert "\x1b" not in text
    assert got.stderr == b""


def test_explain_shows_the_numbers_of_the_file(compiled: Compiler) -> None:
    program = compiled(DYING, "pie")
    text = loadstone("explain", program).text
    found = read_object(program)
    assert found is not None
    native_bias = native_image(program, [program.encode()], []).pc  # runs: the program is sound
    assert native_bias
    for segment in found.segments:
        assert f"LOAD {segment.number} " in text
        assert f"{segment.address:#x} % 0x1000 = {segment.offset:#x} % 0x1000 = {segment.offset % 4096:#x}" in text
    for section in found.sections[1:]:
        assert section.name in text
    assert "p_memsz - p_filesz" in text
    assert "ELF header" in text


def test_auxv_entries_that_differ_from_the_hosts_are_listed() -> None:
    """Without --engine the host's CPU, as the kernel says; with it what a run on that core reads of itself."""
    theirs = dict(native_image("/bin/true", ["/bin/true"], []).auxiliary_vector)
    bare = json.loads(loadstone("explain", "--json", "/bin/true").stdout)
    chosen = json.loads(loadstone("explain", "--json", "--engine", "unicorn", "/bin/true").stdout)
    shown = loadstone("run", "--engine", "unicorn", "/bin/cat", "/proc/self/auxv").stdout
    running = dict(struct.iter_unpack("<QQ", shown))
    assert "auxv_differs" not in bare
    cpu = ("AT_HWCAP", "AT_HWCAP2", "AT_MINSIGSTKSZ")
    for name, kind, value in bare["auxv"]:
        if name in cpu:
            assert value == theirs[kind]
    wanted = []
    for name, kind, value in chosen["auxv"]:
        if name in cpu:
            assert value == running[kind]
            if value != theirs[kind]:
                wanted.append([name, kind, value, theirs[kind]])
    assert sorted(chosen["auxv_differs"]) == sorted(wanted) != []
    for told in (
        loadstone("explain", "--engine", "unicorn", "/bin/true").text,
        loadstone("run", "--stats", "--engine", "unicorn", "/bin/true").errors,
    ):
        text = " ".join(told.split())
        for name, _, value, host in wanted:
            assert f"{name} {value:#x}, the host's {host:#x}" in text


def test_explain_of_what_the_kernel_refuses(odd_files: Path) -> None:
    for name, errno in (
        ("./plain", "EACCES"),
        ("./empty", "ENOEXEC"),
        ("./broken", "ENOEXEC"),
        ("./missing", "ENOENT"),
    ):
        got = loadstone("explain", name, cwd=odd_files)
        assert got.status == 1
        assert errno in got.text
        assert "Traceback" not in got.errors
        data = json.loads(loadstone("explain", "--json", name, cwd=odd_files).stdout)
        assert data["schema"] == "loadstone/image/1"
        assert data["error"]["errno"] == errno
        assert data["error"]["signal"] is None
        assert data["error"]["message"]


def test_explain_of_a_command_that_there_is_not(here: Path) -> None:
    """No execve is made then: the status is the shell's, as for the other commands."""
    got = loadstone("explain", "no-such-command", cwd=here)
    assert (got.status, got.stdout) == (127, b"")
    assert got.errors == "loadstone: no-such-command: command not found\n"
    got = loadstone("explain", "--json", "no-such-command", cwd=here)
    assert (got.status, json.loads(got.stdout)["error"]["errno"]) == (127, "ENOENT")


def test_timeline_of_a_record(here: Path) -> None:
    record, picture = str(here / "run.jsonl"), here / "run.svg"
    made = loadstone("run", "--deterministic", "--record", record, "/bin/sh", "-c", "/bin/true; exit 3", cwd=here)
    assert made.status == 3
    assert loadstone("timeline", "-o", str(picture), record).status == 0
    assert picture.read_bytes() == loadstone("timeline", record).stdout
    live = loadstone("run", "--deterministic", "--processes", "/bin/sh", "-c", "/bin/true; exit 3", cwd=here)
    table = loadstone("timeline", "--table", record)
    assert table.text.strip() in live.errors
    closer = loadstone("timeline", "--from", "500us", "--to", "0.9ms", record)
    assert b"here 500 us to 900 us" in closer.stdout
    late = loadstone("timeline", "--from", "1000s", record)
    assert late.status == 125 and "--from is after the end of the run" in late.errors
    assert "true" in table.text


def test_processes_of_a_machine_in_which_everybody_waits_for_ever(here: Path) -> None:
    script = "mkfifo p; cat p & read x < p"
    got = loadstone("run", "--deterministic", "--processes", "/bin/bash", "-c", script, cwd=here)
    assert got.status == 125 and "every task waits for ever" in got.errors
    assert re.search(r"└─ cat p +- .*, data in", got.errors), got.errors


def test_timeline_of_what_is_no_record(here: Path) -> None:
    (here / "text").write_text("hello\n")
    for words, said in (
        (("text",), "text, line 1: this is no JSON object"),
        (("missing",), "missing cannot be read: No such file or directory"),
        (("--table", "-o", "x", "text"), "--table prints a table instead"),
        (("--table", "--from", "1ms", "text"), "--from and --to are of the picture"),
        (("--from", "2ms", "--to", "1ms", "text"), "--from is not before --to"),
        ((), "RECORD"),
    ):
        got = loadstone("timeline", *words, cwd=here)
        assert got.status == 125 and said in got.errors and "Traceback" not in got.errors


def test_explain_survives_a_name_full_of_control_characters(tmp_path: Path) -> None:
    name = tmp_path / "evil\x1b[2J\nname"
    shutil.copy("/bin/true", name)
    got = loadstone("explain", str(name), "\x1b]0;title\x07")
    assert got.status == 0
    assert b"\x1b" not in got.stdout
    assert b"\x07" not in got.stdout


@pytest.mark.parametrize("words", [("explain", "/bin/ls"), ("maps", "/bin/ls"), ("--help",)])
def test_a_reader_that_leaves_is_no_error(words: tuple[str, ...]) -> None:
    line = " ".join(command(*words))
    done = subprocess.run(
        ["/bin/sh", "-c", f"{line} | head -n 1"], capture_output=True, env=dict(ENVIRONMENT), check=False
    )
    assert done.returncode == 0
    assert done.stderr == b""
    assert done.stdout.count(b"\n") == 1
    if words[0] != "--help":  # which is written before anybody can leave
        seen = subprocess.run(
            ["/bin/bash", "-c", f"{line} | head -n 1; exit ${{PIPESTATUS[0]}}"],
            capture_output=True, env=dict(ENVIRONMENT), check=False,
        )  # fmt: skip
        assert seen.returncode in (0, 141)  # 0: all was written before the reader left


@pytest.mark.parametrize("words", [("explain", "/bin/ls"), ("maps", "/bin/ls"), ("doctor",), ("explain", "/missing")])
def test_a_closed_standard_output_is_one_sentence(words: tuple[str, ...]) -> None:
    line = ["/bin/sh", "-c", f"{' '.join(command(*words))} >&-"]
    done = subprocess.run(line, capture_output=True, env=dict(ENVIRONMENT), check=False)
    assert done.returncode == 125
    assert done.stderr.startswith(b"loadstone: standard output is closed")


def test_a_full_disk_is_one_sentence() -> None:
    for words in (("explain", "/bin/ls"), ("maps", "/bin/ls"), ("doctor", "--json")):
        with open("/dev/full", "wb") as full:
            done = subprocess.run(
                command(*words), stdout=full, stderr=subprocess.PIPE, env=dict(ENVIRONMENT), check=False
            )
        assert done.returncode == 125
        assert done.stderr.splitlines() == [
            b"loadstone: what there is to say cannot be written: No space left on device"
        ]


# -- maps, where, doctor ----------------------------------------------------------------------------------------------


def test_maps_at_exec_are_the_kernels() -> None:
    got = loadstone("maps", "/bin/ls", "-l")
    wanted = native_image("/bin/ls", [b"ls", b"-l"], [])
    theirs = [(m.start, m.end, m.perms, m.offset, m.path) for m in wanted.mappings]
    assert [tuple(m) for m in parse_maps(got.text)] == theirs


def test_maps_at_main_and_exit_have_the_libraries() -> None:
    for moment in ("main", "exit"):
        got = loadstone("maps", "--at", moment, "/bin/echo", "said")
        assert got.status == 0, got.errors
        assert any("libc" in m.path for m in parse_maps(got.text))
        assert "said" not in got.text  # the program's output is not the command's
    assert "said" in got.errors


def test_where_follows_a_symbol_through_all_levels(compiled: Compiler) -> None:
    program = compiled(DYING, "no-pie")
    got = loadstone("where", "--at", "main", program, "main")
    assert got.status == 0, got.errors
    found = read_object(program)
    assert found is not None
    main = found.symbol_named("main")
    assert main is not None
    offset = found.offset_of(main.address)
    assert f"main: {main.address:#x}, when main is called" in got.text
    assert f"offset {offset:#x}" in got.text
    assert ".text" in got.text
    index = [main.address >> shift & 511 for shift in (39, 30, 21, 12)]
    rows = re.findall(r"^ +(PML4|PDPT|PD|PT) +(\d+) +(\d+) +([0-9a-f]{16}) ", got.text, re.MULTILINE)
    assert [(level, int(slot)) for level, _, slot, _ in rows] == list(
        zip(("PML4", "PDPT", "PD", "PT"), index, strict=True)
    )
    for (_, _, _, entry), (_, table, _, _) in pairwise(rows):
        assert int(entry, 16) >> 12 & (1 << 40) - 1 == int(table)  # each level points at the next
    frame = int(rows[-1][3], 16) >> 12 & (1 << 40) - 1
    assert re.search(rf"^ +frame +{frame} \(physical {frame << 12:#x}\), page cache", got.text, re.MULTILINE)
    byte = Path(program).read_bytes()[offset]  # type: ignore[index]
    assert re.search(rf"^ +byte +{byte:#04x}$", got.text, re.MULTILINE)


def test_where_before_anything_was_touched(compiled: Compiler) -> None:
    program = compiled(DYING, "pie")
    got = loadstone("where", program, "main")
    assert got.status == 0, got.errors
    assert "none yet" in got.text
    got = loadstone("where", program, f"{program}+0x40")
    assert "offset 0x40" in got.text
    size = os.stat(program).st_size
    assert "no segment takes this part" in loadstone("where", program, f"{program}+{size - 8}").text


def test_where_of_a_page_mapped_twice(compiled: Compiler) -> None:
    program = compiled(DYING, "noseparate-code")
    found = read_object(program)
    assert found is not None
    last = found.segments[-1]  # its first page holds the end of the segment before, which is mapped there as well
    got = loadstone("where", program, f"{program}+{last.offset:#x}", "--at", "main", "--", "99")
    assert got.status == 0, got.errors
    assert len(re.findall(r"^ +VMA ", got.text, re.MULTILINE)) == 2
    assert "mapped at 2 addresses" in got.text


def test_where_of_nothing(compiled: Compiler) -> None:
    program = compiled(DYING, "pie")
    for place, said in (("nonsuch", "no symbol nonsuch"), ("main+x", "not a number"), ("/etc/passwd+1", "not mapped")):
        got = loadstone("where", program, place)
        assert got.status == 125
        assert said in got.errors
    assert "SEGV_MAPERR" in loadstone("where", program, "0x1000").text


def test_where_at_exit_sees_what_the_program_touched(compiled: Compiler) -> None:
    """A page that only main touches: no entry before it ran, and the byte that it wrote at the end."""
    program = compiled("volatile char far[1 << 20];\nint main(void) { far[600000] = 0x5a; return 3; }\n", "no-pie")
    before, after = (loadstone("where", "--at", moment, program, "far+600000") for moment in ("main", "exit"))
    assert (before.status, after.status) == (0, 0), after.errors
    assert "none yet" in before.text
    assert re.search(r"^ +byte +0x5a$", after.text, re.MULTILINE)
    assert re.search(r"^ +PT .* P  RW  US  A  D  NX ", after.text, re.MULTILINE)


def test_where_finds_the_main_of_a_stripped_program() -> None:
    got = loadstone("where", "--at", "main", "/bin/ls", "main")
    assert got.status == 0, got.errors
    assert re.search(r"^main: 0x5555", got.text)


def test_doctor_names_what_it_looked_at() -> None:
    got = loadstone("doctor")
    assert got.status == 0, got.text
    for part in ("Python", "unicorn", "KVM", "ptrace", "vDSO", "memory", "Programs can be run here."):
        assert part in got.text
    findings = json.loads(loadstone("doctor", "--json").stdout)
    by_name = {finding["what"]: finding for finding in findings}
    assert (by_name["KVM"]["state"] == "ok") == _kvm_works()
    assert by_name["gcc"]["state"] == ("ok" if shutil.which("gcc") else "optional")


def _kvm_works() -> bool:
    from fcntl import ioctl

    try:
        if not stat.S_ISCHR(os.stat("/dev/kvm").st_mode):
            return False
        device = os.open("/dev/kvm", os.O_RDWR)
    except OSError:
        return False
    try:
        os.close(ioctl(device, 0xAE01, 0))
    except OSError:
        return False
    finally:
        os.close(device)
    return True

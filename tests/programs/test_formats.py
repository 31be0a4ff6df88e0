"""Files of other formats, run by an interpreter that binfmt_misc puts in front."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from support.run import loadstone

# How Debian's qemu-user registers itself for i386 programs.
QEMU_I386 = (
    r":qemu-i386:M::\x7fELF\x01\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x03\x00"
    r":\xff\xff\xff\xff\xff\xfe\xfe\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff:{}:POC"
)
HELLO_I386 = """
.globl _start
_start: mov $4, %eax; mov $1, %ebx; mov $text, %ecx; mov $6, %edx; int $0x80; mov $1, %eax; mov $7, %ebx; int $0x80
.data
text: .ascii "hello\\n"
"""


def test_an_i386_program_by_qemu(tmp_path: Path) -> None:
    qemu = shutil.which("qemu-i386") or shutil.which("qemu-i386-static")
    if qemu is None or shutil.which("ld") is None:
        pytest.skip("qemu-i386 (qemu-user) or binutils is not installed")
    source, made, program = tmp_path / "hello.s", tmp_path / "hello.o", tmp_path / "hello"
    source.write_text(HELLO_I386)
    subprocess.run(["as", "--32", "-o", str(made), str(source)], check=True)
    subprocess.run(["ld", "-m", "elf_i386", "-o", str(program), str(made)], check=True)
    assert loadstone("run", str(program)).status == 126
    done = loadstone("run", "--binfmt", QEMU_I386.format(qemu), str(program))
    assert (done.text, done.status) == ("hello\n", 7), done.errors


def script(place: Path, name: str, text: str) -> str:
    path = place / name
    path.write_text(text)
    path.chmod(0o755)
    return str(path)


def test_by_extension(tmp_path: Path) -> None:
    program = script(tmp_path, "hello.py", "import sys; print(sys.argv)\n")
    for flags, argv in (("", [program, "1"]), ("P", [program, program, "1"])):
        # With P the interpreter is called as itself, the file, the old argv[0] and the rest.
        done = loadstone("run", "--binfmt", f":py:E::py::/usr/bin/python3:{flags}", program, "1")
        assert done.text == f"{argv}\n", done.errors


REGISTERS = """
cd /proc/sys/fs/binfmt_misc
ls -a
cat status
echo ':upper:E::up::/tmp/nowhere:' > register
cat upper; stat -c '%a %s %F %U' upper register status
echo ':upper:E::up::/bin/cat:' > register || echo "a second time: refused"
echo -1 > upper; ls
echo ':upper:E::up::/bin/cat:' > register
$1
echo 0 > upper; $1; echo 1 > upper; $1
echo 0 > status; cat status; $1
echo 1 > status
echo -1 > status; ls
cat register
echo nonsense > register; echo $?
"""


def test_what_a_program_registers(tmp_path: Path) -> None:
    if os.geteuid():
        pytest.skip("only root may register formats, inside as outside")
    file = script(tmp_path, "text.up", "echo by the shell\n")
    shell = script(tmp_path, "registers", REGISTERS)
    done = loadstone("run", "/bin/sh", shell, file)
    shown, by_cat, by_shell = (
        "enabled\ninterpreter /tmp/nowhere\nflags: \nextension .up\n",
        "echo by the shell\n",
        "by the shell\n",
    )
    assert done.text == (
        ".\n..\nregister\nstatus\nenabled\n"
        f"{shown}644 0 regular empty file root\n200 0 regular empty file root\n644 0 regular empty file root\n"
        "a second time: refused\nregister\nstatus\n"
        f"{by_cat}{by_shell}{by_cat}disabled\n{by_shell}register\nstatus\n1\n"
    )
    assert "Invalid argument" in done.errors


def test_a_registration_that_makes_no_sense(tmp_path: Path) -> None:
    program = script(tmp_path, "hello.py", "")
    done = loadstone("run", "--binfmt", ":py:E::py::", program)
    assert done.status == 125
    assert "--binfmt :py:E::py::: Invalid argument" in done.errors
    done = loadstone("run", "--binfmt", ":py:E::py::/nowhere:F", program)
    assert done.status == 125 and "ENOENT" in done.errors


def test_untrusted_programs_see_the_interpreter(tmp_path: Path) -> None:
    program = script(tmp_path, "text.up", "shown by cat\n")
    done = loadstone("run", "--untrusted", "--binfmt", ":up:E::up::/bin/cat:", program)
    assert done.text == "shown by cat\n", done.errors


HELLO_JAVA = """
public class Hello {
  public static void main(String[] words) { System.out.println("hello " + String.join(" ", words)); }
}
"""
RUN_CLASS = """#!/bin/sh
file=$1; shift
exec java -Xshare:auto -XX:TieredStopAtLevel=1 -cp "${file%/*}" "$(basename "$file" .class)" "$@"
"""


def test_a_java_class(tmp_path: Path) -> None:
    if shutil.which("javac") is None or shutil.which("java") is None:
        pytest.skip("javac and java (a JDK) are not installed")
    (tmp_path / "Hello.java").write_text(HELLO_JAVA)
    subprocess.run(["javac", "--release", "11", "Hello.java"], cwd=tmp_path, check=True, capture_output=True)
    program = tmp_path / "Hello.class"
    program.chmod(0o755)
    interpreter = script(tmp_path, "run-class", RUN_CLASS)
    done = loadstone("run", "--binfmt", rf":class:M::\xca\xfe\xba\xbe::{interpreter}:", str(program), "from", "Java")
    assert (done.text, done.status) == ("hello from Java\n", 0), done.errors

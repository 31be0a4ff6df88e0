"""bash and busybox: builtins, loops and functions, everything a shell does without starting another process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from support.run import loadstone, same

SCRIPTS = sorted((Path(__file__).parent / "scripts" / "bash").iterdir())


@pytest.mark.parametrize("script", SCRIPTS, ids=[path.stem for path in SCRIPTS])
def test_bash(script: Path, here: Path) -> None:
    same("/bin/bash", "-c", script.read_text(), "script", "arg1", cwd=here)


def test_bash_overlay_leaves_the_host_alone(here: Path) -> None:
    got = loadstone("run", "/bin/bash", "-c", "echo kept > f; mapfile -t l < f; echo ${l[0]}; echo *", cwd=here)
    assert (got.stdout, got.status) == (b"kept\nf\n", 0)
    assert list(here.iterdir()) == []


def test_bash_reads_a_script_from_stdin() -> None:
    same("/bin/bash", "-s", "a", "b", stdin=b'echo "$# $2"\nfor x; do echo $x; done\nexit 5\n')


def test_a_script_file_runs_through_its_interpreter(here: Path) -> None:
    script = here / "script.sh"
    script.write_text('#!/bin/bash -e\necho "$0 $# $1"\nfalse\necho not reached\n')
    script.chmod(0o755)
    same(str(script), "one two", "three")


def test_a_script_without_its_interpreter_says_so(here: Path) -> None:
    script = here / "script"
    script.write_text("#!/no/such/interpreter\n")
    script.chmod(0o755)
    got = loadstone("run", str(script))
    assert got.status in (126, 127)
    assert "/no/such/interpreter" in got.errors
    assert "Traceback" not in got.errors


def test_dash(here: Path) -> None:
    same("/bin/dash", "-c", 'i=0; while [ $i -lt 500 ]; do i=$((i+1)); done; echo $i "$@"; exit 9', "x", "y", cwd=here)


APPLETS = """
cat text
wc text numbers
sort -n numbers
md5sum bytes
sha1sum bytes
sha256sum bytes
sha512sum text
cut -d: -f2 table
tr a-z A-Z
head -n 3 text
tail -n 3 text
uniq -c repeated
grep -c a text
sed s/a/b/ sorted
awk -F: {s+=$3}END{print+s,s/7} table
expr 3 * 4
seq 1 100
ls -l tree
find tree -type d -name deeper
stat -c %s text
cksum bytes
base64 all-bytes
hexdump -C all-bytes
od -b all-bytes
factor 123456789
date -u -d @0
printf %d:%s\\n 3 x
nl sorted
tac sorted
fold -w 10 sorted
cal 2 2024
dc -e 2p
bc
echo -e a\\tb
test -f text
false
basename /a/b
dirname /a/b
realpath tree/link
uname -m
cmp text numbers
diff sorted other
gzip -c sorted
bzip2 -c sorted
no-such-applet
""".strip().splitlines()


@pytest.mark.parametrize("line", APPLETS, ids=[f"{n:02}-{line.split()[0]}" for n, line in enumerate(APPLETS)])
def test_busybox(line: str, data: Path, find_program: Callable[[str], str]) -> None:
    same(find_program("busybox"), *line.replace("\\\\", "\\").split(" "), cwd=data, stdin=b"2^70; 22/7\n")


def test_busybox_shell(data: Path, find_program: Callable[[str], str]) -> None:
    script = 'f() { echo "f $1"; }; for i in 1 2 3; do f $i; done; read a b < text; echo "$a" $((6 * 7)); echo t*'
    same(find_program("busybox"), "sh", "-c", script, cwd=data)

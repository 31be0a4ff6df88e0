"""The everyday programs, on real data: same standard output, standard error and exit status as on the host's kernel."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from support.run import ENVIRONMENT, loadstone, native, same
from support.trees import snapshot

# One line a case: the program and its arguments, run in the data directory. `<FILE` at the end feeds a file to stdin.
READING = """
cat text table no-newline
cat -A no-newline all-bytes
cat - numbers <sorted
cat missing text
tac text
nl -ba text
nl table
head -n 7 text numbers
head -c 100000 bytes
head -n -2990 text
tail -n 5 text
tail -c 4097 bytes
tail -n +2990 text
sort text
sort -n numbers
sort -rnk3 -t: table
sort -u repeated
sort -c text
uniq -c repeated
uniq -d repeated
wc text numbers bytes
wc -l <text
cut -d: -f2,3 table
cut -c1-10 text
cut -b 3- --output-delimiter=X numbers
tr a-z A-Z <text
tr -d '\\n' <numbers
tr -cs a-z _ <text
paste numbers sorted
paste -s -d, sorted
join left right
comm sorted other
comm -12 sorted other
fold -w 30 text
fold -s -w 20 text
fmt -w 50 text
pr -l 60 -h title sorted
expand no-newline
unexpand -a text
od -A d -t x1z all-bytes
od -t fD -N 800 bytes
base64 all-bytes
base64 -d <no-newline
base32 all-bytes
sha256sum bytes text
sha1sum bytes
sha512sum text empty
b2sum text
md5sum bytes
cksum bytes
sum table
tsort left
shuf -e a --random-source=bytes
ptx -G -w 60 sorted
factor 1 2 97 600851475143 18446744073709551557
seq 1 3 5000
seq -w 0 0.1 12.5
seq -f %.17g 0 0.333 9
expr 17 * ( 3 + 4 ) % 5
expr hello : h\\(.*\\)o
expr 1 / 0
printf %d|%s|%5.2f|%x|%b\\n 42 word 3.14159 255 a\\tb
printf %.20Lf\\n 0.1
printf %q\\n two words
numfmt --to=iec 1234567890
date -u -d @0
date -u -d @1700000000 +%A,%d.%B.%Y-%H:%M:%S,%j,%U
date -u -d 2024-02-29 +%s
date -d nonsense
stat -c %n,%s,%a,%U,%G,%F,%h,%b,%B,%Y,%d,%i text tree tree/link /etc/passwd
stat -c %n,%s,%a,%U,%G,%F,%h,%b,%B,%t,%T /dev/null /dev/zero /dev/tty
stat text tree/one.c tree/deep
stat -c %n,%w,%W,%x,%y,%z text tree
stat -t text
stat missing
ls -l tree
ls -laR tree
ls -li text bytes
ls --color=always -F tree
ls missing
dir tree
vdir tree/deep
du -a --apparent-size tree
du -s tree
find tree -name *.c -newer missing
find tree/deep/deeper -type f -size +1
find tree/one.c -printf %p,%s,%m,%u,%y\\n
grep -n ab text
grep -c -E (a|b)+c text
grep -rl three tree/deep/three.c
grep -P a(?=b) sorted
grep nothing-like-this text
sed -n 10,20p text
sed -E s/([a-z]+):([0-9]+)/\\2-\\1/ table
sed y/abc/xyz/;$!d numbers
awk -F: {s+=$3}END{print+s,NR,sqrt(s),s/7} table
awk {n[length($0)]++}END{print+n[0],n[10]} text
id
id -u
groups
whoami
uname -m
uname -s
arch
nproc --all
env
env -i A=1 /usr/bin/env
env --unset=HOME /usr/bin/printenv
printenv PATH HOME
pwd
echo -e a\\tb\\n c
basename /a/b/c.txt .txt
dirname /a/b/c /x relative
realpath . tree/link missing
realpath -e missing/deeper
readlink tree/link
readlink -f tree/link /proc/self/exe
readlink text
pathchk -p a/b
test -f text
test -d text
test -L tree/link
[ 3 -gt 2 ]
true
false
cmp text numbers
cmp text text
diff sorted other
diff -u left right
tee <text
dd if=bytes bs=1000 count=3 skip=2 status=none
truncate --help
sleep 0.01
sync text
yes --version
stty -a <text
tty <text
dircolors -b
hostid --version
link --version
which ls cat missing
getopt -o ab:c --long alpha,beta: -- -a -b val --beta=x rest
rev <text
column -t -s: table
hexdump -C all-bytes
xxd all-bytes
"""


def _cases() -> list[tuple[str, list[str], str | None]]:
    found = []
    for line in READING.strip().splitlines():
        words = line.replace("\\\\", "\\").split(" ")
        feed = words.pop()[1:] if words[-1].startswith("<") else None
        found.append((words[0], [word.strip("'") for word in words[1:]], feed))
    return found


CASES = _cases()


@pytest.mark.parametrize(("program", "args", "feed"), CASES, ids=[f"{n:03}-{c[0]}" for n, c in enumerate(CASES)])
def test_reads_as_native(
    program: str, args: list[str], feed: str | None, data: Path, find_program: Callable[[str], str]
) -> None:
    path = find_program(program)
    _skip_scripts(path)
    same(path, *args, cwd=data, stdin=(data / feed).read_bytes() if feed else None)


def test_the_table_has_thirty_coreutils() -> None:
    listed = {program for program, _, _ in CASES}
    assert len(listed) >= 80


def test_lists_usr_bin_exactly() -> None:
    same("/bin/ls", "-l", "/usr/bin")


def test_finds_every_file_of_a_tree(data: Path) -> None:
    """The order is that of the directory, which POSIX leaves open: compare what is found."""
    wanted, got = native("/usr/bin/find", ".", cwd=data), loadstone("run", "/usr/bin/find", ".", cwd=data)
    assert got.status == wanted.status == 0
    assert sorted(got.stdout.splitlines()) == sorted(wanted.stdout.splitlines())


def test_name_is_searched_in_path_as_a_shell_does(data: Path) -> None:
    got = loadstone("run", "basename", "/a/b", cwd=data)
    assert (got.stdout, got.status) == (b"b\n", 0)


# Programs that write: run natively in one copy of the data, inside Loadstone with `--rw` in another; the copies must
# come out the same. Without `--rw` the same command must say the same and leave the copy as it was.
WRITING = """
touch -d @1000000000 new text
mkdir -m 750 -p a/b/c
mkdir tree
rmdir tree
rmdir tree/deep/deeper
cp text copy
cp -a tree tree-copy
cp -r tree/deep elsewhere
cp -v text numbers tree
cp missing somewhere
mv text moved
mv -v text tree/deep
mv tree/one.c text
mv tree renamed
ln text hard
ln -s text soft
ln -sf nowhere tree/link
rm text tree/link
rm -rv tree
rm missing
rm tree
unlink numbers
split -n 4 bytes part-
split -l 1000 text
csplit -s text 10 20
tee one two <sorted
dd if=bytes of=out bs=4096 count=100 conv=notrunc status=none
dd if=sorted of=text bs=1 seek=50 count=30 conv=notrunc status=none
truncate -s 1000 text
truncate -s 100000 sorted
chmod 600 text
chmod -R a-w tree
install -m 711 -D text in/stalled
sort -o numbers -n numbers
sed -i s/a/b/g text
shuf --random-source=bytes -o shuffled sorted
cp --preserve=all text with-times
gzip -n text
gzip -nk9 tree/one.c
tar cf all.tar --sort=name --mtime=@0 tree
"""
WRITING_CASES = [line.split(" ") for line in WRITING.strip().splitlines()]


def _copy(data: Path, to: Path) -> Path:
    shutil.copytree(data, to, symlinks=True)
    for directory, directories, files in os.walk(to):
        for name in (".", *directories, *files):
            os.utime(os.path.join(directory, name), (10**9, 10**9), follow_symlinks=False)
    return to


@pytest.mark.parametrize("words", WRITING_CASES, ids=[f"{n:03}-{w[0]}" for n, w in enumerate(WRITING_CASES)])
def test_writes_as_native(words: list[str], data: Path, tmp_path: Path, find_program: Callable[[str], str]) -> None:
    program, args = find_program(words[0]), words[1:]
    _skip_scripts(program)
    feed = (data / args.pop()[1:]).read_bytes() if args[-1].startswith("<") else None
    host, given, kept = (_copy(data, tmp_path / name / "d") for name in ("native", "given", "kept"))
    before = snapshot(kept)

    wanted = native(program, *args, stdin=feed, cwd=host)
    with_rw = loadstone("run", "--rw", str(given), "--", program, *args, stdin=feed, cwd=given)
    overlaid = loadstone("run", "--", program, *args, stdin=feed, cwd=kept)

    for got in (with_rw, overlaid):
        assert (got.status, got.stdout, got.guest_stderr) == (wanted.status, wanted.stdout, wanted.stderr)
    assert snapshot(given, times=False) == snapshot(host, times=False)
    assert snapshot(kept) == before


def test_touch_sets_the_times_it_was_given(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("x")
    got = loadstone("run", "--rw", str(tmp_path), "--", "/usr/bin/touch", "-d", "@1234567890.5", str(file))
    assert got.status == 0, got.errors
    assert file.stat().st_mtime_ns == 1_234_567_890_500_000_000


def test_mkfifo_makes_a_pipe_of_the_guest(here: Path) -> None:
    """Also under --rw: a named pipe is a thing of the guest's kernel, and the host's are never opened."""
    script = "import os, stat\nos.mkfifo('p')\nprint(stat.S_ISFIFO(os.stat('p').st_mode), os.listdir('.'))\n"
    script += "r = os.open('p', os.O_RDONLY | os.O_NONBLOCK); w = os.open('p', os.O_WRONLY)\n"
    script += "os.write(w, b'through'); print(os.read(r, 9))"
    for options in ([], ["--rw", str(here)]):
        got = loadstone("run", *options, "--", "/usr/bin/python3", "-c", script, cwd=here)
        assert (got.status, got.text) == (0, "True ['p']\nb'through'\n"), got.errors
        assert list(here.iterdir()) == []


def test_what_was_discarded_is_counted_with_the_option_that_keeps_it(tmp_path: Path) -> None:
    got = loadstone("run", "/usr/bin/cp", "/etc/passwd", str(tmp_path / "copy"))
    assert got.status == 0
    assert "--rw" in got.errors
    assert str(tmp_path) in got.errors
    assert not (tmp_path / "copy").exists()


def test_environment_of_the_guest_is_what_was_asked_for() -> None:
    got = loadstone("run", "--clear-env", "--env", "A=1", "--env", "B=two words", "/usr/bin/env")
    assert sorted(got.stdout.splitlines()) == [b"A=1", b"B=two words"]
    kept = loadstone("run", "--env", "A=1", "/usr/bin/env", env={**ENVIRONMENT, "A": "0", "C": "3"})
    assert set(kept.stdout.splitlines()) == {b"A=1", b"C=3", *(f"{k}={v}".encode() for k, v in ENVIRONMENT.items())}


def _skip_scripts(path: str) -> None:
    with open(path, "rb") as file:
        if file.read(2) == b"#!":
            pytest.skip(f"{path} is a script here: it starts other programs")

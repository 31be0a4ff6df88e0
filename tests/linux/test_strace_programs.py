"""Whole programs, forking ones too, read in the trace as strace(1) shows them natively: every line it shows, we show.

What differs between any two runs is taken out first: addresses, numbers, the order of processes, and what is read.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from support.run import loadstone

ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "HOME": "/nonexistent"}
FILES = "cp /etc/hostname a; mv a b; ln b c; ln -s b d; ls -la b; touch -d 2020-01-01T00:00:00Z b; stat b; rm b c d"
THREADS = """
import mmap, select, signal, socket, threading, os
t = threading.Thread(target=print); t.start(); t.join()
a, b = socket.socketpair(); a.send(b"x"); select.select([b], [], [], 1)
p = select.epoll(); p.register(b); p.poll(1); b.recv(3)
s = socket.socket(socket.AF_UNIX); s.bind("sk"); s.listen(1); os.unlink("sk")
signal.signal(signal.SIGUSR1, lambda *_: None); os.kill(os.getpid(), signal.SIGUSR1)
r, w = os.pipe(); os.set_blocking(r, False); os.write(w, b"1"); os.read(r, 1)
os.sched_getaffinity(0); os.getgroups(); os.times(); os.umask(0o27); os.get_terminal_size
"""
# Its child sends it the signal that its timer would: at no time that a loaded machine could miss.
TIME_OUT = ["timeout", "600", "sh", "-c", "kill -ALRM $PPID; while :; do :; done"]
CHILDREN = "import subprocess, os\nsubprocess.run(['echo', 'a'], capture_output=True)\n"
CHILDREN += "pid = os.fork()\nif not pid: os._exit(3)\nos.waitpid(pid, 0)\nos.waitpid(-1, os.WNOHANG) if 0 else None\n"
PROGRAMS = {
    "cat": ["cat", "/etc/passwd", "/nonexistent"],
    "ls": ["ls", "-l", "/usr"],
    "sort": ["sort", "/etc/passwd"],
    "find": ["find", "/etc/apt", "-name", "*.list"],
    "tar": ["tar", "cf", "/dev/null", "/etc/apt"],
    "sleep": ["sleep", "0.01"],
    "id": ["id"],
    "pipeline": ["bash", "-c", "ls / | sort | head -2; exit 3"],
    "gzip": ["sh", "-c", "echo hello | gzip | gzip -d"],
    "files": ["sh", "-c", FILES],
    "trap": ["bash", "-c", "trap 'echo t' USR1; kill -USR1 $$; (kill -TERM $BASHPID) & wait $!; exit 1"],
    "xargs": ["sh", "-c", "seq 3 | xargs -n1 -P2 echo"],
    "timeout": TIME_OUT,
    "perl": [
        "perl",
        "-e",
        "system('echo hi'); fork() or exit 3; wait; kill 0, $$; rename 'x', 'y'; print readlink 'b'",
    ],
    "children": ["python3", "-S", "-E", "-c", CHILDREN],
    "threads": ["python3", "-S", "-E", "-c", THREADS],
}
# Not a matter of how things are shown: the machine's own facts.
OTHERWISE = (
    r"execve\(.* = 0|",  # the first one: strace starts the program, here it is there already
    r"getppid|sysinfo|sched_getaffinity|prlimit64|getpgrp|setpgid|times|getrusage|",  # of the machine, not of the host
    r"f?statfs|getxattr|lgetxattr|",  # the overlay has no ACLs
    r"ioctl\(\d+, (TCGETS|BTRFS)|",  # clones are not offered
    r"poll|ppoll|select|epoll_wait|futex|mmap\(NULL, N, PROT_NONE|munmap|",  # who came first
    r".*ERESTART|.*EINTR|rt_sigreturn|read\(\d+, \"S\"|",
    r"--- |\+\+\+ exited with 0|restart_syscall|wait4|waitid",
)


def shape(line: str) -> str:
    line = re.sub(r"\)\s+= ", ") = ", line)
    line = re.sub(r'"(\\.|[^"\\])*"(\.\.\.)?', '"S"', line) if line.startswith(("read", "write", "getrandom")) else line
    line = re.sub(r"0x[0-9a-f]+", "X", line).replace("/two", "/one")
    line = re.sub(r"st_size=\d+", "st_size=N", line)
    line = re.sub(r"stx_mask=[\w|]+", "stx_mask=M", line)  # which fields a file system gives
    line = re.sub(r"(?<![\w.])-?\d{2,}(\*\d+)?(?![\w.])", "N", line)
    return re.sub(r"tv_n?u?sec=(-?\d+|N)", "T", line)


def shapes(lines: list[str]) -> dict[str, str]:
    return {shape(line): line for line in lines if re.match(r"\w+\(|--- |\+\+\+ ", line)}


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
@pytest.mark.parametrize("name", PROGRAMS)
def test_every_line_that_strace_shows(name: str, tmp_path: Path) -> None:
    if shutil.which(PROGRAMS[name][0]) is None:
        pytest.skip(f"there is no {PROGRAMS[name][0]}")
    natively, here = tmp_path / "one", tmp_path / "two"
    natively.mkdir()
    here.mkdir()
    command = ["setarch", "-R", "strace", "-ff", "-o", str(tmp_path / "calls"), *PROGRAMS[name]]
    done = subprocess.run(
        command, cwd=natively, capture_output=True, env=ENVIRONMENT, check=False, stdin=subprocess.DEVNULL
    )
    if b"Operation not permitted" in done.stderr:
        pytest.skip("strace may not trace here")
    trace = tmp_path / "ours"
    loadstone("run", "--trace", "syscall", "-o", str(trace), "--", *PROGRAMS[name], env=ENVIRONMENT, cwd=here)
    theirs = [line for file in tmp_path.glob("calls.*") for line in file.read_text(errors="replace").splitlines()]
    ours = [re.sub(r"^\[pid \d+\] ", "", line) for line in trace.read_text().splitlines()]
    known = shapes(ours)
    missing = {
        line: [one for one in known.values() if one.partition("(")[0] == line.partition("(")[0]][:3]
        for key, line in shapes(theirs).items()
        if key not in known and not re.match("".join(OTHERWISE), line)
    }
    assert not missing

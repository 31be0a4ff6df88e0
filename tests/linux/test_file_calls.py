"""Every call on files, natively and inside Loadstone: the same results, the same errors, in the same order.

Each program makes some hundred calls and prints what they return: native twins, with an expected output nobody wrote.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import IO

import pytest

from support.c_programs import both
from support.compilers import Compiler
from support.run import ENVIRONMENT, run_command

NAMES = [
    "opening", "touched", "transfer", "names", "status", "descriptors", "waiting", "interrupted", "copying",
    "sockets", "timers", "sharing", "seals", "splicing", "extended", "areas", "sysv_shm", "naming",
    "epolls", "inotify", "inet", "other_memory", "inspecting", "file_signals", "sealed", "queued_signals",
    "alternate_stack", "scripts", "sessions", "restarts", "tcp_options",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_calls_give_what_the_kernel_gives(name: str, compiled: Compiler, tmp_path: Path) -> None:
    ours, theirs = both(name, compiled, tmp_path)
    different = [
        f"\n  native    {b}\n  loadstone {a}"
        for a, b in zip(ours, theirs, strict=False)
        if a != b and not b.endswith(" ENOSYS")  # the host's kernel is older than the call
    ]
    assert not different, "".join(different)
    assert len(ours) == len(theirs) > 10


def test_mounting_gives_what_the_kernel_gives(compiled: Compiler, tmp_path: Path) -> None:
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode:
        pytest.skip("a mount namespace is not to be had here")
    ours, theirs = both("mounting", compiled, tmp_path)
    assert ours == theirs and len(ours) > 50


def test_the_options_of_mounts_do_what_the_kernel_does(compiled: Compiler, tmp_path: Path) -> None:
    if os.geteuid() or subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode:
        pytest.skip("only root may mount, and in a mount namespace of its own")
    for name, least in (("mount_options", 70), ("mount_api", 70), ("access_times", 70), ("mount_polling", 15)):
        (tmp_path / name).mkdir()
        ours, theirs = both(name, compiled, tmp_path / name)
        assert ours == theirs and len(ours) > least


EDGES = r"""
#include <fcntl.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <unistd.h>
int main(void) {
  int inner = epoll_create1(0), outer = epoll_create1(0), got;
  struct epoll_event in = {EPOLLIN | EPOLLET, {.u64 = 1}}, list = {EPOLLIN, {.u64 = 9}}, out;
  char text[3];
  setvbuf(stdout, 0, _IONBF, 0);
  fcntl(0, F_SETFL, O_NONBLOCK);
  epoll_ctl(inner, EPOLL_CTL_ADD, 0, &in);
  epoll_ctl(outer, EPOLL_CTL_ADD, inner, &list);
  do {
    printf("%d", epoll_wait(outer, &out, 1, -1));
    printf("%d:", epoll_wait(inner, &out, 1, 0));
    printf("%x ", out.events);
    printf("%d ", epoll_wait(inner, &out, 1, 0));  /* told once, whatever is left */
    while ((got = read(0, text, 3)) > 0) printf("read %d ", got);
    printf("?");
  } while (got);
}
"""


@pytest.mark.parametrize("side", ["native", "loadstone"])
def test_edges_of_the_hosts_files(side: str, compiled: Compiler) -> None:
    """What comes through a pipe of the host's is told once for each time that something comes."""
    program = compiled(EDGES, "static")
    line = [program] if side == "native" else run_command("--", program)
    with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, env=ENVIRONMENT) as process:
        assert process.stdin is not None and process.stdout is not None
        said = []
        for text in (b"abcde", b"fg"):
            process.stdin.write(text)
            said.append(read_until(process.stdout, b"?"))
        process.stdin.close()
        said.append(process.stdout.read())
    assert said == [b"11:1 0 read 3 read 2 ?", b"11:1 0 read 2 ?", b"11:10 0 ?"]


def read_until(file: IO[bytes], end: bytes) -> bytes:
    """What can be read up to these bytes, or up to the end."""
    text = b""
    while not text.endswith(end) and (more := file.read(1)):
        text += more
    return text


NESTED = r"""
#include <stdio.h>
#include <sys/epoll.h>
int main(void) {
  struct epoll_event event = {EPOLLIN}, out;
  int outer = epoll_create1(0), inner = epoll_create1(0);
  epoll_ctl(inner, EPOLL_CTL_ADD, 0, &event);
  epoll_ctl(outer, EPOLL_CTL_ADD, inner, &event);
  setvbuf(stdout, 0, _IONBF, 0);
  printf("%d", epoll_wait(outer, &out, 1, 0));
  printf("%d", epoll_wait(outer, &out, 1, -1));
}
"""


def test_what_is_in_an_inner_epoll_list_wakes_who_waits_for_the_outer(compiled: Compiler) -> None:
    program = compiled(NESTED, "static")
    line = run_command("--", program)
    with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, env=ENVIRONMENT) as process:
        assert process.stdin is not None and process.stdout is not None
        assert process.stdout.read(1) == b"0"
        process.stdin.write(b"x")
        assert process.stdout.read() == b"1"
    assert process.returncode == 0

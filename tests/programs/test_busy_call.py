"""A system call that would keep Loadstone busy for hours does not keep it from stopping."""

from __future__ import annotations

import os
import signal
import subprocess
import time

import pytest

from support.compilers import Compiler
from support.endings import end_by_three
from support.run import ENVIRONMENT, loadstone, run_command

# 2^33 pages, of which each is asked for by itself.
BUSY = r"""
#include <stdio.h>
#include <sys/mman.h>
int main(void) {
  size_t size = 1UL << 45;
  char *area = mmap(0, size, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  char *vector = mmap(0, size >> 12, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  puts("busy");
  fflush(stdout);
  mincore(area, size, (unsigned char *)vector);
}
"""


def test_timeout_ends_it(compiled: Compiler) -> None:
    before = time.monotonic()
    done = loadstone("run", "--timeout", "0.5", "--memory", "1G", "--", compiled(BUSY, "static"))
    assert done.status == 124
    assert done.errors.startswith("loadstone: the time of --timeout is up")
    assert time.monotonic() - before < 100


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_end_it(number: signal.Signals, compiled: Compiler) -> None:
    line = run_command("--memory", "1G", "--", compiled(BUSY, "static"))
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=dict(ENVIRONMENT)) as process:
        assert process.stdout is not None and process.stderr is not None
        assert os.read(process.stdout.fileno(), 5) == b"busy\n"
        time.sleep(0.5)  # until it is in the call
        # the program itself sees none of them before its call is over, as natively
        end_by_three(lambda: process.send_signal(number), lambda: process.poll() is not None)
        assert process.returncode == 128 + number
        said = b"loadstone: killed by SIGTERM\n" if number == signal.SIGTERM else b""  # a shell is quiet about SIGINT
        assert process.stderr.read() == said

"""Terminals: what a program may ask of the user's, what it is refused, and that its modes are given back."""

from __future__ import annotations

import os
import pty
import select
import shlex
import subprocess
import termios
import tty
from collections.abc import Iterator

import pytest

from loadstone.linux.console import Console
from loadstone.linux.syscalls import ioctl as any_file
from loadstone.linux.syscalls import terminal as requests
from support.compilers import Compiler
from support.run import ENVIRONMENT, command

ASK = """
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>
#define T(call) do { errno = 0; long r = (call); \\
  dprintf(1, "%s = %ld %s\\r\\n", #call, r, r < 0 ? strerrorname_np(errno) : ""); } while (0)
int main(int argc, char **argv) {
  struct termios modes, raw;
  struct winsize size;
  char c = 'x', big[64];
  int n, fd = 0;
  T(isatty(fd));
  T(tcgetattr(fd, &modes));
  T(ioctl(fd, TIOCGWINSZ, &size));
  dprintf(1, "%dx%d\\r\\n", size.ws_col, size.ws_row);
  T(ioctl(fd, 0x802c542a, big));
  T(tcgetpgrp(fd) == getpgrp());
  T(tcsetpgrp(fd, getpgrp()));
  T(tcsetpgrp(fd, 99999));
  T(tcsetpgrp(fd, -5));
  T(tcgetsid(fd) == getsid(0));
  T(ioctl(fd, FIONREAD, &n));
  T(tcflush(fd, TCIFLUSH));
  T(tcflush(fd, 77));
  T(ioctl(fd, TIOCOUTQ, &n));
  T(ioctl(fd, TIOCGETD, &n));
  T(ioctl(fd, TCGETS, 8));
  T(ioctl(fd, FICLONE_, 0));
  T(ioctl(fd, 0x5499, 0));
  if (argc > 1) {
    T(ioctl(fd, TIOCSTI, &c));
    T(ioctl(fd, TIOCLINUX, &c));
    T(ioctl(fd, TIOCCONS, 0));
    T(ioctl(fd, TIOCSCTTY, 0));
    T(ioctl(fd, TIOCSWINSZ, &size));
    raw = modes;
    cfmakeraw(&raw);
    T(tcsetattr(fd, TCSADRAIN, &raw));
    T(tcgetattr(fd, &raw));
    dprintf(1, "echo %d\\r\\n", !!(raw.c_lflag & ECHO));
    if (argv[1][0] == 'r') T(read(fd, &c, 1));
  }
  return 7;
}
""".replace("FICLONE_", "0x40049409")


class Pty:
    """A pseudo-terminal with a known size; what is behind `slave` is the program's."""

    def __init__(self) -> None:
        self.master, self.slave = pty.openpty()
        tty.setraw(self.slave)
        modes = termios.tcgetattr(self.slave)
        modes[3] |= termios.ECHO | termios.ISIG
        termios.tcsetattr(self.slave, termios.TCSANOW, modes)
        termios.tcsetwinsize(self.slave, (33, 77))

    def run(self, *line: str, typed: bytes = b"") -> tuple[str, int]:
        """Run a program with the terminal as stdin and stdout; its output and status."""
        with subprocess.Popen(
            line, stdin=self.slave, stdout=self.slave, stderr=subprocess.PIPE, env=dict(ENVIRONMENT),
            preexec_fn=self._own_session,
        ) as process:  # fmt: skip
            output = b""
            while process.poll() is None or select.select([self.master], [], [], 0.1)[0]:
                if select.select([self.master], [], [], 0.1)[0]:
                    output += os.read(self.master, 65536)
                if typed and b"echo 0" in output:
                    os.write(self.master, typed)
                    typed = b""
            assert process.stderr is not None
            errors = process.stderr.read().decode()
        assert "Traceback" not in errors, errors
        return output.decode(), process.returncode

    def _own_session(self) -> None:
        os.setsid()
        import fcntl

        fcntl.ioctl(self.slave, termios.TIOCSCTTY, 0)

    def close(self) -> None:
        os.close(self.master)
        os.close(self.slave)


@pytest.fixture
def terminal() -> Iterator[Pty]:
    made = Pty()
    yield made
    made.close()


def test_a_terminal_answers_as_it_does_natively(compiled: Compiler, terminal: Pty) -> None:
    program = compiled(ASK, "pie")
    theirs, status = terminal.run(program)
    ours, our_status = terminal.run(*command("run", "--", program))
    assert (our_status, status) == (7, 7)
    assert ours.splitlines() == theirs.splitlines()
    assert "77x33" in ours


THROUGH_DEV_TTY = """
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>
int main(void) {
  struct termios modes;
  char text[8] = "";
  int fd = open("/dev/tty", O_RDWR);
  dprintf(fd, "%d %d echo 0", isatty(fd), tcgetattr(fd, &modes));
  read(fd, text, 7);
  return strcmp(text, "typed\\n") ? 1 : 9;
}
"""


def test_dev_tty_is_the_users_terminal(compiled: Compiler, terminal: Pty) -> None:
    """Standard output may be elsewhere, as for a program that asks for a password."""
    program = compiled(THROUGH_DEV_TTY, "pie")
    for line in ([program], command("run", "--", program)):
        output, status = terminal.run("/bin/sh", "-c", f"{shlex.join(line)} > /dev/null", typed=b"typed\n")
        assert status == 9, output
        assert output.startswith("1 0 echo 0")


def test_what_could_type_for_the_user_is_refused(compiled: Compiler, terminal: Pty) -> None:
    output, _ = terminal.run(*command("run", "--", compiled(ASK, "pie"), "refuse"), typed=b"q")
    for name in ("TIOCSTI, &c", "TIOCLINUX, &c", "TIOCCONS, 0", "TIOCSWINSZ, &size"):
        assert f"ioctl(fd, {name}) = -1 EPERM" in output
    assert termios.tcgetwinsize(terminal.slave) == (33, 77)


def test_modes_are_given_back(compiled: Compiler, terminal: Pty) -> None:
    before = termios.tcgetattr(terminal.slave)
    output, status = terminal.run(*command("run", "--", compiled(ASK, "pie"), "keep"))
    assert "echo 0" in output and status == 7
    assert termios.tcgetattr(terminal.slave) == before


def test_modes_are_given_back_after_a_read(compiled: Compiler, terminal: Pty) -> None:
    before = termios.tcgetattr(terminal.slave)
    output, status = terminal.run(*command("run", "--", compiled(ASK, "pie"), "read"), typed=b"q")
    assert "read(fd, &c, 1) = 1" in output and status == 7
    assert termios.tcgetattr(terminal.slave) == before


def test_console_restores_the_first_modes_it_saw(terminal: Pty) -> None:
    console = Console()
    before = termios.tcgetattr(terminal.slave)
    console.remember(terminal.slave)
    modes = termios.tcgetattr(terminal.slave)
    modes[3] &= ~termios.ECHO
    termios.tcsetattr(terminal.slave, termios.TCSANOW, modes)
    console.remember(terminal.slave)
    console.restore()
    assert termios.tcgetattr(terminal.slave) == before
    console.restore()


def test_console_survives_a_terminal_that_is_gone() -> None:
    gone = Pty()
    console = Console()
    console.remember(gone.slave)
    gone.close()
    console.restore()


def test_the_lists_do_not_overlap() -> None:
    refused = {requests.TIOCSTI, requests.TIOCLINUX, requests.TIOCCONS}
    assert all(any_file.ANY_FILE[request] is requests.refused for request in refused)
    assert not refused & set(requests.TERMINAL)


def test_request_numbers_are_the_hosts() -> None:
    for name in ("TCGETS", "TCSETSW", "TIOCGWINSZ", "TIOCSTI", "TIOCSCTTY", "TIOCCONS", "TIOCLINUX", "FIONREAD",
                 "TIOCGPGRP", "TIOCSPGRP", "TIOCOUTQ", "TIOCGETD", "TIOCPKT", "FIONBIO", "FIOCLEX"):  # fmt: skip
        assert {**vars(requests), **vars(any_file)}[name] == getattr(termios, name), name

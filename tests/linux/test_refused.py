"""What a guest may not do gets the errno that programs expect, and is counted in the report of the run."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.c_programs import HEADER
from support.compilers import Compiler
from support.run import loadstone, native

SOCKETS = (
    HEADER
    + """
#include <arpa/inet.h>
#include <sys/socket.h>
int main(void) {
  int pair[2], on = 1, fd = open("/dev/null", O_RDWR);
  T(connect(fd, (void *)pair, 4));
  T(getpeername(fd, NOWHERE, NOWHERE));
  T(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on));
  T(send(fd, "x", 1, 0));
  T(recv(fd, &on, 1, 0));
  T(listen(fd, 5));
  T(shutdown(fd, 2));
  T(accept(99, 0, 0));
  T(socket(AF_INET, 0777, 0));
  struct sockaddr_in far = {AF_INET, htons(80), {htonl(0xc0000201)}};
  if (argc_is_more) T(socket(AF_NETLINK, SOCK_RAW, 15)); /* NETLINK_KOBJECT_UEVENT */
  if (argc_is_more) T(socket(AF_INET, SOCK_RAW, 1));
  if (argc_is_more) T(connect(socket(AF_INET, SOCK_STREAM, 0), (void *)&far, sizeof far));
  if (argc_is_more) T(sendto(socket(AF_INET, SOCK_DGRAM, 0), "x", 1, 0, (void *)&far, sizeof far));
  return 0;
}
"""
)
DENIED = (
    HEADER
    + """
int main(void) {
  T(S(swapoff, "/dev/null"));
  T(S(acct, 0));
  T(S(kexec_load, 0, 0, 0, 0));
  T(S(bpf, 0, 0, 0));
  T(S(init_module, 0, 0, 0));
  T(S(fanotify_init, 0, 0));
  T(S(io_uring_setup, 8, 0));
  T(mknod("disk", S_IFBLK | 0600, 0xfe00)); /* of the host's, perhaps */
  T(open("disk", O_RDONLY));
  T(mknod("zero", S_IFCHR | 0600, 0x105));
  T(read(open("zero", O_RDONLY), NOWHERE, 0));
  return 0;
}
"""
)


def results(text: str) -> list[str]:
    return [line.split(" = ")[1] for line in text.splitlines()]


def test_calls_on_what_is_no_socket(compiled: Compiler) -> None:
    program = compiled(SOCKETS.replace("argc_is_more", "0"), "pie")
    assert loadstone("run", "--", program).text == native(program).text


def test_nobody_outside_is_reached(compiled: Compiler) -> None:
    program = compiled(SOCKETS.replace("argc_is_more", "1"), "pie")
    done = loadstone("run", "--stats", "--", program)
    assert results(done.text)[-4:] == ["-1 EAFNOSUPPORT", "-1 EACCES", "-1 ENETUNREACH", "-1 ENETUNREACH"]
    assert "AF_NETLINK" in done.errors and "network: send to 192.0.2.1:80" in done.errors
    note = "there is no network outside of the machine; refused: a socket for raw packets, and 2 more"
    assert done.errors.count(note) == 1


def test_the_machine_is_not_the_guests(compiled: Compiler, tmp_path: Path) -> None:
    done = loadstone("run", "--stats", "--", compiled(DENIED, "pie"), cwd=tmp_path)
    assert results(done.text) == ["-1 EPERM"] * 5 + ["-1 ENOSYS"] * 2 + ["0", "-1 ENXIO", "0", "0"]
    for name in ("swapoff", "kexec_load", "fanotify_init", "io_uring_setup"):
        assert name in done.errors


@pytest.mark.parametrize("program", ["/usr/bin/id", "/usr/bin/getent"])
def test_the_name_service_falls_back_to_files(program: str) -> None:
    if not Path(program).exists():
        pytest.skip(f"{program} is not installed")
    arguments = () if program.endswith("id") else ("passwd", "root")
    done = loadstone("run", "--", program, *arguments)
    wanted = native(program, *arguments)
    assert (done.stdout, done.status) == (wanted.stdout, wanted.status)


ABSENT = (
    HEADER
    + """
int main(void) {
  T(S(pkey_alloc, 0, 4));
  T(S(pkey_alloc, 1, 0));
  T(S(pkey_free, 1));
  T(S(pkey_mprotect, 0x1001, 4096, 1, -1));
  T(S(get_mempolicy, 0, 0, 0, 0, 0));
  return 0;
}
"""
)


def test_what_a_kernel_may_be_built_without_is_no_gap(compiled: Compiler) -> None:
    program = compiled(ABSENT, "pie")
    got = loadstone("run", "--stats", "--", program)
    assert results(got.text)[:4] == results(native(program).text)[:4]
    assert results(got.text)[4:] == ["-1 ENOSYS"]
    assert "NOT IMPLEMENTED" not in got.errors
    assert "get_mempolicy" in got.errors

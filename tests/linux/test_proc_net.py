"""/proc/net: a program's own sockets, as the kernel we run on shows it its own."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest

from support.run import loadstone, same

# Makes sockets in every state, and prints what /proc/net says of those, with ports and inodes as words. Data that is
# sent is waited for, and so is its acknowledgement: natively both take their time.
SOCKETS = """
import os, socket, time

def listener(address, family=socket.AF_INET):
    return socket.create_server((address, 0), family=family, backlog=5)

def bound(address, family=socket.AF_INET):
    made = socket.socket(family, socket.SOCK_DGRAM)
    made.bind((address, 0))
    return made

any_, tcp, six = listener("0.0.0.0"), listener("127.0.0.1"), listener("::1", socket.AF_INET6)
near = socket.create_connection(tcp.getsockname())
far, _ = tcp.accept()
ended = socket.create_connection(tcp.getsockname())
ended_far, _ = tcp.accept()
waiting = socket.create_connection(tcp.getsockname())
udp, udp6 = bound("127.0.0.1"), bound("::1", socket.AF_INET6)
udp6.connect(udp6.getsockname())
near.send(b"hello")
ended.shutdown(socket.SHUT_WR)

mine = {socket.SOCK_STREAM: [any_, tcp, six, near, far, ended, ended_far, waiting], socket.SOCK_DGRAM: [udp, udp6]}
inodes = {str(os.fstat(one.fileno()).st_ino): f"inode{at}" for at, one in enumerate(sum(mine.values(), []))}

def words_of(name, kind):
    ports = {}
    for one in mine[kind]:
        ports.setdefault(f"{one.getsockname()[1]:04X}", f"port{len(ports)}")
    with open(f"/proc/net/{name}") as file:
        title, *lines = file.read().splitlines()
    yield f"{name} {title!r}"
    for line in lines:
        words = line.split()
        ends = [word.split(":") for word in words[1:3]]
        if ends[0][1] in ports:
            shown = [f"{address}:{ports.get(port, port)}" for address, port in ends]
            width = 0 if name.endswith("6") else len(line)  # the others are not filled up, and have numbers in them
            yield " ".join([*shown, *words[3:5], words[7], inodes.get(words[9], words[9]), str(width)])

def told():
    files = {"tcp": socket.SOCK_STREAM, "tcp6": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM, "udp6": socket.SOCK_DGRAM}
    return "\\n".join(line for name, kind in files.items() for line in sorted(words_of(name, kind)))

def settled(text):
    return " 05 00000000:00000000 " in text and " 08 00000000:00000001 " in text and ":00000005 " in text \\
        and "00000005:" not in text and text.count(" 01 ") == 5

while not settled(told()):
    time.sleep(0.01)
print(told())
"""


def test_sockets_are_shown_as_the_kernel_shows_them() -> None:
    assert len(same("python3", "-c", SOCKETS).text.splitlines()) == 4 + 8 + 1 + 1 + 1


@pytest.mark.skipif(
    os.geteuid() != 0 or bool(subprocess.run(["unshare", "-n", "true"], capture_output=True, check=False).returncode),
    reason="a network namespace is not to be had here",
)
def test_a_new_network_has_the_loopback_device_alone() -> None:
    same("/usr/bin/env", "unshare", "-n", "sh", "-c", "cat /proc/self/net/dev; cat /proc/net/tcp6 /proc/net/udp")


SERVED = """
import socket, subprocess
server = socket.create_server(("127.0.0.1", 0))
port = server.getsockname()[1]
lines = subprocess.run(["netstat", "-ltn"], capture_output=True, text=True).stdout.splitlines()
print([line.split()[3:6] for line in lines if f":{port} " in line] == [[f"127.0.0.1:{port}", "0.0.0.0:*", "LISTEN"]])
"""


@pytest.mark.skipif(shutil.which("netstat") is None, reason="netstat is not installed")
def test_netstat_lists_a_server() -> None:
    done = loadstone("run", "--", "python3", "-c", SERVED)
    assert done.text == "True\n", done.errors

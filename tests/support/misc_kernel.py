"""The real kernel's binfmt_misc, in a user and mount namespace of its own: nobody else's programs are affected.

Since Linux 6.7 every user namespace has its own formats. `MiscKernel` is one process in such a namespace that answers
questions, one JSON line each.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from typing import Any

import pytest

_INSIDE = r"""
import errno, json, os, subprocess, sys, tempfile
place = tempfile.mkdtemp()
done = subprocess.run(["mount", "-t", "binfmt_misc", "none", place], capture_output=True, text=True)
print(json.dumps(done.stderr if done.returncode else "ready"), flush=True)

def write(name, data):
    try:
        fd = os.open(os.path.join(place.encode(), name), os.O_WRONLY)
    except OSError as error:
        return errno.errorcode[error.errno]
    try:
        os.write(fd, data)
        return "ok"
    except OSError as error:
        return errno.errorcode[error.errno]
    finally:
        os.close(fd)

def read(name):
    with open(os.path.join(place.encode(), name), "rb") as file:
        return file.read().hex()

def register(text):
    data = bytes.fromhex(text)
    before = set(os.listdir(place.encode()))
    answer = write(b"register", data)
    new = [name for name in os.listdir(place.encode()) if name not in before]
    shown = read(new[0]) if new else ""
    return [answer, new[0].hex() if new else "", shown]

def image(path, argv, envp):
    from loadstone.verify.native import native_image
    from loadstone.verify.native_exec import NativeFailure
    try:
        seen = native_image(path, [bytes.fromhex(a) for a in argv], [bytes.fromhex(e) for e in envp])
    except NativeFailure as failure:
        return failure.name
    return {"maps": seen.maps, "auxv": seen.auxiliary_vector, "sp": seen.stack_pointer, "stack": seen.stack.hex(),
            "registers": seen.registers, "name": seen.name}

try:
    for line in sys.stdin:
        what, *arguments = json.loads(line)
        if what == "register":
            answer = register(*arguments)
        elif what == "write":
            answer = write(bytes.fromhex(arguments[0]), bytes.fromhex(arguments[1]))
        elif what == "read":
            answer = read(bytes.fromhex(arguments[0]))
        elif what == "list":
            answer = sorted(name.hex() for name in os.listdir(place.encode()))
        elif what == "image":
            answer = image(*arguments)
        print(json.dumps(answer), flush=True)
finally:
    subprocess.run(["umount", place])
    os.rmdir(place)
"""


class MiscKernel:
    """Ask it, and close it. Skips the test where the host cannot give such a namespace."""

    def __init__(self) -> None:
        if shutil.which("unshare") is None:
            pytest.skip("unshare (util-linux) is not installed")
        line = ["unshare", "--user", "--map-root-user", "--mount", sys.executable, "-c", _INSIDE]
        self._process = subprocess.Popen(
            line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        first = self._process.stdout.readline()
        if not first or json.loads(first) != "ready":
            why = json.loads(first) if first else "no user namespace: " + self._errors()
            self.close()
            pytest.skip(f"binfmt_misc cannot be mounted in a user namespace here: {why.strip()}")

    def _errors(self) -> str:
        return self._process.stderr.read() if self._process.stderr else ""

    def _ask(self, *question: object) -> Any:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, self._errors()
        return json.loads(answer)

    def register(self, text: bytes) -> tuple[str, bytes, bytes]:
        """(`ok` or an errno's name, the new file's name, what it shows)."""
        answer, name, shown = self._ask("register", text.hex())
        return answer, bytes.fromhex(name), bytes.fromhex(shown)

    def write(self, name: bytes, data: bytes) -> str:
        """Write to a file of binfmt_misc: `ok` or an errno's name."""
        answer: str = self._ask("write", name.hex(), data.hex())
        return answer

    def read(self, name: bytes) -> bytes:
        """A whole file."""
        return bytes.fromhex(self._ask("read", name.hex()))

    def names(self) -> list[bytes]:
        """The files, sorted."""
        return [bytes.fromhex(name) for name in self._ask("list")]

    def image(self, path: str, argv: list[bytes], envp: list[bytes]) -> Any:
        """An errno's name or `signal N`, or the image: maps, auxv, sp, stack (hex), registers, name."""
        return self._ask("image", path, [a.hex() for a in argv], [e.hex() for e in envp])

    def close(self) -> None:
        """End the process; its formats go with the namespace."""
        self._process.communicate()

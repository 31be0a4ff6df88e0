"""The page faults of a real process (loadstone.verify.native_faults), for tests: skipped where the host forbids it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from loadstone.errors import HostError
from loadstone.verify.native_faults import NativeFault, NativeRun, record_faults


def exec_faults(path: str, argv: Sequence[bytes], envp: Sequence[bytes]) -> list[int]:
    """The addresses of the faults before the first instruction."""
    return [fault.address for fault in _recorded(path, argv, envp, to_the_end=False).faults]


def run_faults(path: str, argv: Sequence[bytes], envp: Sequence[bytes]) -> list[NativeFault]:
    """The faults of a whole run, from execve to exit, its output thrown away."""
    return list(_recorded(path, argv, envp, to_the_end=True).faults)


def _recorded(path: str, argv: Sequence[bytes], envp: Sequence[bytes], *, to_the_end: bool) -> NativeRun:
    try:
        run = record_faults(path, argv, envp, to_the_end=to_the_end)
    except HostError as error:
        pytest.skip(str(error.args[0]))
    if not run.kernel_mode:
        pytest.skip("faults in kernel mode are shown to root only")
    return run

"""Loadstone: from `execve()` to exit, on real page tables.

The public names are imported on first use, so that `import loadstone` costs next to nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from loadstone.api import Machine, Process, explain
    from loadstone.errors import LinuxError

__all__ = ["LinuxError", "Machine", "Process", "__version__", "explain"]
__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    if name in ("Machine", "Process", "explain"):
        from loadstone import api

        return getattr(api, name)
    if name == "LinuxError":
        from loadstone.errors import LinuxError

        return LinuxError
    raise AttributeError(f"module 'loadstone' has no attribute {name!r}")

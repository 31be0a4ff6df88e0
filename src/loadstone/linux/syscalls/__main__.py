"""`python -m loadstone.linux.syscalls > docs/syscalls.md`: the compatibility table, from the registry."""

from __future__ import annotations

from loadstone.linux.syscalls.document import markdown

if __name__ == "__main__":
    print(markdown(), end="")

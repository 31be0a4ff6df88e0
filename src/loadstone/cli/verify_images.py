"""`loadstone verify PROGRAM [ARG]…` and `loadstone verify DIRECTORY…`: process images, ours beside the kernel's."""

from __future__ import annotations

from argparse import Namespace

from loadstone.cli.parser import Parser
from loadstone.errors import HostError


def run(parser: Parser, options: Namespace) -> int:
    """Run the mode; the exit status."""
    raise HostError("comparing images is still being written")

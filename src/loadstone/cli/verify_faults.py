"""`loadstone verify --faults PROGRAM [ARG]…`: a whole run's page faults beside the kernel's own trace."""

from __future__ import annotations

from argparse import Namespace

from loadstone.cli.parser import Parser
from loadstone.errors import HostError


def add_options(parser: Parser) -> None:
    """The options of this mode."""
    add = parser.group("Compare page faults")
    add("--faults", action="store_true", help="compare the page faults of the whole run with the kernel's trace")
    add("--run-natively", action="store_true", help="with --faults: agree that the host runs the program to its end")


def wanted(options: Namespace) -> bool:
    """Whether the command line asks for this mode."""
    return bool(options.faults)


def run(parser: Parser, options: Namespace) -> int:
    """Run the mode; the exit status. `options.words` are PROGRAM and its arguments."""
    raise HostError("--faults is still being written")

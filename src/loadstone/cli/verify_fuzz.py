"""`loadstone verify --fuzz N`, `--conformance`, `--aslr N`: the verdict on bad files, and random addresses."""

from __future__ import annotations

from argparse import Namespace

from loadstone.cli import values
from loadstone.cli.parser import Parser
from loadstone.errors import HostError


def add_options(parser: Parser) -> None:
    """The options of these modes."""
    add = parser.group("Compare verdicts")
    add("--fuzz", metavar="N", type=values.integer, help="give N mutated files to both, and compare their verdicts")
    add("--seed", metavar="S", type=values.integer, default=0, help="with --fuzz: of the mutations (default: 0)")


def wanted(options: Namespace) -> bool:
    """Whether the command line asks for one of these modes."""
    return options.fuzz is not None


def run(parser: Parser, options: Namespace) -> int:
    """Run the mode; the exit status. `options.words` is what is left of the command line."""
    raise HostError("--fuzz is still being written")

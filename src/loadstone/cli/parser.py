"""argparse, made quick and made ours: nothing heavy imported, errors as one sentence and a hint, exit status 125."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any, NoReturn

from loadstone.errors import HostError


class Formatter(argparse.HelpFormatter):
    """Help of 80 columns. Knowing the width saves argparse from importing `shutil` for every option."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=25, width=80)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "".join(indent + line for line in text.splitlines(keepends=True))


class Parser(argparse.ArgumentParser):
    """The parser of one command.

    `usage` is what follows the command's name; `about` what it is for; `examples` the lines that end its help.
    """

    def __init__(self, command: str, usage: str, about: str, examples: str) -> None:
        self._command = command
        super().__init__(
            prog=f"loadstone {command}",
            usage=f"loadstone {command} {usage}",
            description=about,
            epilog=examples,
            formatter_class=Formatter,
            allow_abbrev=False,
            add_help=False,
        )
        self.add_argument("-h", "--help", action="help", help=argparse.SUPPRESS)

    def group(self, title: str) -> Callable[..., Any]:
        """The `add_argument` of a group of options."""
        return self.add_argument_group(title).add_argument

    def error(self, message: str) -> NoReturn:
        """Raise what `main` turns into one sentence and the hint."""
        said = message.removeprefix("argument ")  # argparse's word for an option
        raise HostError(f"{self._command}: {said}", f"see loadstone {self._command} --help")


def program_words(parser: Parser, words: list[str]) -> list[str]:
    """PROGRAM and its arguments: all that is left once options end, with a `--` before PROGRAM taken away."""
    if words[:1] == ["--"]:
        words = words[1:]
    elif words and words[0].startswith("-") and words[0] != "-":
        parser.error(f"unknown option {words[0]}")
    if not words:
        parser.error("which program?")
    return words


def add_program(parser: Parser) -> None:
    """The rest of the line, from PROGRAM on, unparsed."""
    parser.add_argument("words", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)

"""What reports are written on: rich, set up so that nothing a program brought along is taken for markup or control.

On a terminal there is colour and the terminal's width (at most 110 columns); in a pipe there are 80 plain columns.
COLUMNS and NO_COLOR are obeyed.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import IO, cast

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from loadstone.observe.text import printable

PIPE_WIDTH, WIDEST, NARROWEST = 80, 110, 40
DIM, STRONG, WARNING = "dim", "bold", "bold red"


class Column:
    """How one column is set. `right`: numbers; `fixed`: never wrapped; `style`: as rich names it."""

    __slots__ = ("fixed", "name", "right", "style")

    def __init__(self, name: str, *, right: bool = False, fixed: bool = False, style: str = "") -> None:
        self.name = name
        self.right = right
        self.fixed = fixed or right
        self.style = style


class _Trimmed:
    """A stream that takes no blanks at the ends of lines."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self.encoding = getattr(stream, "encoding", None) or "utf-8"

    def write(self, text: str) -> int:
        if " \n" in text:
            text = "\n".join([line.rstrip(" ") for line in text.split("\n")])
        return self._stream.write(text)

    def flush(self) -> None:
        self._stream.flush()

    def isatty(self) -> bool:
        return False


class _Console(Console):
    """A console whose reader may leave, as any program's may; rich itself would end the process with status 1."""

    def on_broken_pipe(self) -> None:
        """Let the command line say how such a run ends."""
        raise


class Paper:
    """A stream to write headings, paragraphs and tables on."""

    def __init__(self, stream: IO[str], width: int | None = None) -> None:
        columns = os.environ.get("COLUMNS", "")
        if width is None:
            width = int(columns) if columns.isdigit() else _terminal_width(stream)
        self.width = max(width, NARROWEST)
        self._console = _Console(
            file=stream if stream.isatty() else cast("IO[str]", _Trimmed(stream)),
            width=self.width,
            highlight=False,
            markup=False,
            emoji=False,
        )

    def heading(self, text: str) -> None:
        """A section's title, with an empty line before it."""
        self._console.print()
        self._console.print(Text(printable(text), style=STRONG))

    def title(self, text: str) -> None:
        """The first line."""
        self._console.print(Text(printable(text), style=STRONG))

    def paragraph(self, text: str, *, indent: int = 2, style: str = "") -> None:
        """Running text, wrapped."""
        self._console.print(Padding(Text(printable(text), style=style), (0, 0, 0, indent), expand=False))

    def item(self, mark: str, text: str, *, indent: int = 2) -> None:
        """A paragraph with a mark before it: the number of a step."""
        grid = Table.grid(padding=(0, 1, 0, 0))
        grid.add_column(no_wrap=True)
        grid.add_column(overflow="fold")
        grid.add_row(Text(printable(mark)), Text(printable(text)))
        self._console.print(Padding(grid, (0, 0, 0, indent), expand=False))

    def line(self, text: str, *, indent: int = 2, style: str = "") -> None:
        """One line, never wrapped or cut: a memory map, a command."""
        self._console.print(Text(" " * indent + printable(text), style=style), soft_wrap=True)

    def table(self, columns: Sequence[Column], rows: Iterable[Sequence[object]], *, indent: int = 2) -> None:
        """A table; the last row is set apart when its first cell is `total`."""
        table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), header_style=STRONG)
        for column in columns:
            table.add_column(
                column.name,
                justify="right" if column.right else "left",
                no_wrap=column.fixed,
                overflow="fold",
                style=column.style,
            )
        for row in rows:
            style = STRONG if row and row[0] == "total" else ""
            table.add_row(*(Text(printable(str(cell))) for cell in row), style=style)
        self._console.print(Padding(table, (0, 0, 0, indent), expand=False))

    def blank(self) -> None:
        """An empty line."""
        self._console.print()


def _terminal_width(stream: IO[str]) -> int:
    try:
        return min(os.get_terminal_size(stream.fileno()).columns or PIPE_WIDTH, WIDEST)
    except (OSError, ValueError, AttributeError):
        return PIPE_WIDTH


def count(number: int, one: str, many: str = "") -> str:
    """`1 page`, `2 pages`, `12,345 pages`."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"

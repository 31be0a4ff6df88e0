"""What a terminal's program writes and what is echoed, on the way to the screen. Source: drivers/tty/n_tty.c."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from loadstone.vfs.terminal_modes import (
    ECHOCTL,
    IUTF8,
    OCRNL,
    OLCUC,
    ONLCR,
    ONLRET,
    ONOCR,
    OPOST,
    TABDLY,
    XTABS,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadstone.vfs.terminal_modes import Modes

BACKSPACE, TAB, NEWLINE, RETURN = 0x08, 0x09, 0x0A, 0x0D
_TAB_WIDTH = 8
_PRINTABLE: Final = bytes(range(0x20, 0x7F))
_MOST_AT_ONCE = 256  # bytes looked at for printable ones
_LOWER: Final = frozenset((*range(0x61, 0x7B), *range(0xDF, 0xF7), *range(0xF8, 0x100)))  # lib/ctype.c: Latin-1
_UPPER: Final = frozenset((*range(0x41, 0x5B), *range(0xC0, 0xD7), *range(0xD8, 0xDF)))
_ECHO_START = 0xFF  # marks operations in the kernel's queue; echoed itself, it is a column wide and never changed
_ECHO_SIZE = 4096  # what is echoed while output is stopped, N_TTY_BUF_SIZE


def is_control(byte: int) -> bool:
    """iscntrl() of the kernel."""
    return byte < 0x20 or byte == 0x7F


def is_word(byte: int) -> bool:
    """Whether erasing a word takes it: isalnum() of the kernel, or `_`."""
    return 0x30 <= byte <= 0x39 or byte in _LOWER or byte in _UPPER or byte == 0x5F


def to_lower(byte: int) -> int:
    """tolower() of the kernel."""
    return byte + 0x20 if byte in _UPPER else byte


def to_upper(byte: int) -> int:
    """toupper() of the kernel."""
    return byte - 0x20 if byte in _LOWER else byte


class TerminalOutput:
    """The output side of a line discipline: columns, what OPOST changes, and the queue of echoes.

    `put` takes bytes for the screen, `room` says how many it takes now, `tell` hears that output stops (True)
    or goes on (False).
    """

    __slots__ = ("_canon_column", "_column", "_echoes", "held", "modes", "put", "room", "stopped", "tell")

    def __init__(
        self, modes: Modes, put: Callable[[bytes], None], room: Callable[[], int], tell: Callable[[bool], None]
    ) -> None:
        self.modes = modes
        self.put = put
        self.room = room
        self.tell = tell
        self.stopped = False  # by Ctrl-S: nothing leaves until it is started again
        self.held = False  # by TCOOFF, which only TCOON ends
        self._column = 0
        self._canon_column = 0  # where the line that is typed begins
        self._echoes: deque[Callable[[int], bytes | None]] = deque()

    def free(self) -> int:
        """How many bytes can leave now."""
        return 0 if self.stopped or self.held else self.room()

    def stop(self, *, hold: bool = False) -> None:
        """Let nothing leave: a key for it was typed, or a program said so (`hold`)."""
        stood = self.stopped or self.held
        if hold:
            self.held = True
        else:
            self.stopped = True
        if not stood:
            self.tell(True)

    def start(self, *, held: bool = False) -> None:
        """Let it leave again; what a program holds only with `held` (start_tty, tco_stopped)."""
        if self.held and not held:
            return
        stood = self.stopped or self.held
        self.stopped = self.held = False
        if stood:
            self.tell(False)

    # What the program writes

    def write(self, data: bytes) -> int:
        """Send as much as there is room for, changed as OPOST says; the bytes taken."""
        self.flush_echoes()
        if not self.modes.oflag & OPOST:
            part = data[: self.free()]
            if part:
                self.put(part)
            return len(part)
        room = self.free()
        out = bytearray()
        taken = 0
        while taken < len(data):
            run = self._printable_run(data, taken, room - len(out))
            sent = run or self._processed(data[taken], room - len(out))
            if sent is None:
                break
            out += sent
            taken += len(run) or 1
        if out:
            self.put(bytes(out))
        return taken

    def _printable_run(self, data: bytes, at: int, room: int) -> bytes:
        """ASCII at `at` that is sent as it is, a column a byte, with the column moved (process_output_block)."""
        if self.modes.oflag & OLCUC:
            return b""
        part = data[at : at + min(room, _MOST_AT_ONCE)]
        run = part[: len(part) - len(part.lstrip(_PRINTABLE))]
        self._column += len(run)
        return run

    def _processed(self, byte: int, room: int) -> bytes | None:
        """What is sent for a byte, with the columns moved; None if there is no room (do_output_char)."""
        if room < 1:
            return None
        return _MOVES.get(byte, TerminalOutput._character)(self, byte, room)

    def _newline(self, byte: int, room: int) -> bytes | None:
        oflag = self.modes.oflag
        if oflag & ONLRET:
            self._column = 0
        if not oflag & ONLCR:
            self._canon_column = self._column
            return b"\n"
        if room < 2:
            return None
        self._canon_column = self._column = 0
        return b"\r\n"

    def _carriage_return(self, byte: int, room: int) -> bytes:
        oflag = self.modes.oflag
        if oflag & ONOCR and not self._column:
            return b""
        if not oflag & OCRNL:
            self._canon_column = self._column = 0
            return b"\r"
        if oflag & ONLRET:
            self._canon_column = self._column = 0
        return b"\n"

    def _tab(self, byte: int, room: int) -> bytes | None:
        width = _TAB_WIDTH - self._column % _TAB_WIDTH
        expanded = self.modes.oflag & TABDLY == XTABS
        if expanded and room < width:
            return None
        self._column += width
        return b" " * width if expanded else b"\t"

    def _backspace(self, byte: int, room: int) -> bytes:
        self._column = max(0, self._column - 1)
        return b"\b"

    def _character(self, byte: int, room: int) -> bytes:
        if is_control(byte):
            return bytes((byte,))
        if self.modes.oflag & OLCUC:
            byte = to_upper(byte)
        if not self.continues(byte):
            self._column += 1
        return bytes((byte,))

    def continues(self, byte: int) -> bool:
        """Whether it is a character's second or later byte, under IUTF8."""
        return bool(self.modes.iflag & IUTF8) and byte & 0xC0 == 0x80

    # What is typed

    def echo(self, byte: int) -> None:
        """Show a typed byte, control characters as ^X."""
        if self.modes.lflag & ECHOCTL and is_control(byte) and byte != TAB:
            self._echoes.append(lambda room: self._caret(byte, room))
        else:
            self.echo_raw(byte)

    def echo_raw(self, byte: int) -> None:
        """Show a byte as the program's output would be."""
        self._echoes.append(lambda room: self._plain(byte, room))

    def start_of_line(self) -> None:
        """What is echoed next is the first character of a line."""
        self._echoes.append(lambda room: self._mark())

    def move_back(self) -> None:
        """Of what was echoed last, the column does not count."""
        self._echoes.append(lambda room: self._back())

    def erase_tab(self, columns: int, after_tab: bool) -> None:
        """Go back over a tab, `columns` after the line's beginning, or after another tab."""
        self._echoes.append(lambda room: self._untab(columns, after_tab, room))

    def forget_echoes(self) -> None:
        """Drop what is not shown yet."""
        self._echoes.clear()

    def flush_echoes(self) -> None:
        """Show what was echoed, as far as there is room."""
        out = bytearray()
        room = self.free() if self._echoes else 0
        while self._echoes:
            sent = self._echoes[0](room - len(out))
            if sent is None:
                break
            out += sent
            self._echoes.popleft()
        while len(self._echoes) > _ECHO_SIZE:
            self._echoes.popleft()
        if out:
            self.put(bytes(out))

    def _caret(self, byte: int, room: int) -> bytes | None:
        if room < 2:
            return None
        self._column += 2
        return bytes((0x5E, byte ^ 0x40))

    def _plain(self, byte: int, room: int) -> bytes | None:
        if byte == _ECHO_START and room > 0:
            self._column += 1
            return bytes((byte,))
        if self.modes.oflag & OPOST:
            return self._processed(byte, room)
        return bytes((byte,)) if room > 0 else None

    def _mark(self) -> bytes:
        self._canon_column = self._column
        return b""

    def _back(self) -> bytes:
        self._column = max(0, self._column - 1)
        return b""

    def _untab(self, columns: int, after_tab: bool, room: int) -> bytes | None:
        width = _TAB_WIDTH - (columns if after_tab else columns + self._canon_column) % _TAB_WIDTH
        if width > room:
            return None
        self._column = max(0, self._column - width)
        return b"\b" * width


# What moves the cursor otherwise than by one column, under OPOST.
_MOVES: Final[dict[int, Callable[[TerminalOutput, int, int], bytes | None]]] = {
    BACKSPACE: TerminalOutput._backspace,
    TAB: TerminalOutput._tab,
    NEWLINE: TerminalOutput._newline,
    RETURN: TerminalOutput._carriage_return,
}

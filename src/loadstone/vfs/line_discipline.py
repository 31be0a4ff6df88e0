"""From keys to what a program reads: lines that can be edited, signals, flow control. Source: drivers/tty/n_tty.c."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from loadstone.vfs.terminal_modes import (
    ECHO,
    ECHOCTL,
    ECHOE,
    ECHOK,
    ECHOKE,
    ECHONL,
    ECHOPRT,
    EXTPROC,
    ICANON,
    ICRNL,
    IEXTEN,
    IGNCR,
    INLCR,
    ISIG,
    ISTRIP,
    IUCLC,
    IXANY,
    IXON,
    NOFLSH,
    PARMRK,
    VEOF,
    VEOL,
    VEOL2,
    VERASE,
    VINTR,
    VKILL,
    VLNEXT,
    VQUIT,
    VREPRINT,
    VSTART,
    VSTOP,
    VSUSP,
    VWERASE,
    Modes,
)
from loadstone.vfs.terminal_output import BACKSPACE, NEWLINE, RETURN, TAB, TerminalOutput, is_control, is_word, to_lower
from loadstone.vfs.typed_lines import TypedLines

if TYPE_CHECKING:
    from collections.abc import Callable

BUFFER_SIZE: Final = 4096  # N_TTY_BUF_SIZE; one byte of it is for the end of a line
SIGINT, SIGQUIT, SIGTSTP = 2, 3, 20
_SIGNALS: Final = ((VINTR, SIGINT), (VQUIT, SIGQUIT), (VSUSP, SIGTSTP))  # of equal keys the first counts
_WIPES = ECHOK | ECHOKE | ECHOE  # a killed line is wiped off the screen


class LineDiscipline:
    """How keys become input: which of them edit, end a line, send signals or stop the output.

    Attributes:
        modes: replaced by `set_modes` only.
        output: where echoes go.
        lines: what was typed and not read.
        signal: called with the number that a key sends to the foreground group.
        flush: called when a signal throws away what was typed, and what the program wrote and nobody has read.
    """

    __slots__ = ("_editing", "_erasing", "_literal", "_special", "flush", "lines", "modes", "output", "signal")

    def __init__(self, output: TerminalOutput, signal: Callable[[int], None], flush: Callable[[], None]) -> None:
        self.output = output
        self.signal = signal
        self.flush = flush
        self.lines = TypedLines()
        self._literal = False  # the next byte is data, after LNEXT
        self._erasing = False  # between \ and / of ECHOPRT
        self._learn(output.modes)

    @property
    def canonical(self) -> bool:
        """Whether input comes in lines."""
        return bool(self.modes.lflag & ICANON) and not self.modes.lflag & EXTPROC

    def set_modes(self, modes: Modes) -> None:
        """Take new modes; what was typed changes its meaning, as n_tty_set_termios() has it."""
        old = self.modes
        self.output.modes = modes
        self._learn(modes)
        if (old.lflag ^ modes.lflag) & (ICANON | EXTPROC):
            self.lines.release()
            self._erasing = self._literal = False
        if old.iflag & IXON and not modes.iflag & IXON:
            self.start_output()

    def _learn(self, modes: Modes) -> None:
        self.modes = modes
        self._editing = self._editing_keys()
        self._special = self._special_keys()

    def _special_keys(self) -> dict[int, Callable[[int], None]]:
        """What the bytes do that are more than data. The last of two meanings counts (n_tty_receive_char_special)."""
        modes, cc = self.modes, self.modes.cc
        found: dict[int, Callable[[int], None]] = dict.fromkeys(self._editing, self._key)
        if modes.iflag & (IGNCR | ICRNL):
            found[RETURN] = self._return
        if modes.iflag & INLCR:
            found[NEWLINE] = self._newline_as_return
        if modes.lflag & ISIG:
            found.update({cc[place]: self._signal_key for place, _ in _SIGNALS})
        if modes.iflag & IXON:
            found[cc[VSTOP]] = self._stop_key
            found[cc[VSTART]] = self._start_key
        found.pop(0, None)  # there is no such key
        return found

    def _editing_keys(self) -> dict[int, Callable[[int], None]]:
        """The keys that edit a line or end it. The last of two meanings counts (n_tty_receive_char_canon)."""
        cc, lflag = self.modes.cc, self.modes.lflag
        if not lflag & ICANON:
            return {}
        found: dict[int, Callable[[int], None]] = {}
        if lflag & IEXTEN:
            found[cc[VEOL2]] = self._end_line
        found |= {cc[VEOL]: self._end_line, cc[VEOF]: self._end_of_file, NEWLINE: self._newline}
        if lflag & IEXTEN:
            if lflag & ECHO:
                found[cc[VREPRINT]] = self._reprint
            found |= {cc[VLNEXT]: self._quote_next, cc[VWERASE]: self._erase}
        return found | {cc[VKILL]: self._erase, cc[VERASE]: self._erase}

    # What the program reads

    def available(self) -> int:
        """Bytes that a read finds; in canonical mode an end of file is none."""
        return self.lines.available() if self.canonical else len(self.lines.typed)

    def reach(self) -> int:
        """How far reads may go: ends of file counted as bytes. It grows when there is more for a reader."""
        return self.lines.readable if self.canonical else len(self.lines.typed)

    def has_input(self, minimum: int = 1) -> bool:
        """Whether a read need not wait: a line, or an end of file, or `minimum` bytes."""
        return self.reach() >= (1 if self.canonical else minimum)

    def take(self, count: int) -> bytes:
        """Up to `count` bytes; of one line in canonical mode. b"" is the end of file."""
        return self.lines.take_line(count) if self.canonical else self.lines.take(min(count, len(self.lines.typed)))

    def discard(self) -> None:
        """Throw away what was typed (reset_buffer_flags)."""
        self.lines.clear()
        self._erasing = False

    # What is typed

    def room(self) -> int:
        """How many bytes may be typed now; a line that is too long loses what follows, so there is always room."""
        used = len(self.lines.typed) * (3 if self.modes.iflag & PARMRK else 1)
        if self.canonical and not self.lines.readable:
            return BUFFER_SIZE
        return max(0, BUFFER_SIZE - 1 - used)

    def receive(self, data: bytes) -> None:
        """Take what was typed, `room()` bytes at most."""
        lines = self.lines
        for byte in data:
            if self.canonical and not lines.readable and len(lines.typed) >= BUFFER_SIZE:
                lines.typed.pop()
            self._receive(byte)
        self.output.flush_echoes()

    def _receive(self, byte: int) -> None:
        iflag, lflag = self.modes.iflag, self.modes.lflag
        if iflag & ISTRIP:
            byte &= 0x7F
        if iflag & IUCLC and lflag & IEXTEN:
            byte = to_lower(byte)
        if self._literal:
            self._literal = False
            self._data(byte)
        elif lflag & EXTPROC:
            self.lines.typed.append(byte)
        else:
            self._special.get(byte, self._data)(byte)

    def _data(self, byte: int) -> None:
        """A byte that means nothing special (n_tty_receive_char)."""
        self._any_starts()
        if self.modes.lflag & ECHO:
            self._finish_erasing()
            self._echo_data(byte)
        self._double_mark(byte)
        self.lines.typed.append(byte)

    def _double_mark(self, byte: int) -> None:
        """Under PARMRK a byte 0xff that was typed is told from one that marks an error."""
        if byte == 0xFF and self.modes.iflag & PARMRK:
            self.lines.typed.append(byte)

    def _echo_data(self, byte: int) -> None:
        if not self.lines.editable:
            self.output.start_of_line()
        self.output.echo(byte)

    # Keys that do something at once

    def _start_key(self, byte: int) -> None:
        self.start_output()

    def _stop_key(self, byte: int) -> None:
        self.output.stop()

    def _signal_key(self, byte: int) -> None:
        self.signal(next(number for place, number in _SIGNALS if self.modes.cc[place] == byte))
        if not self.modes.lflag & NOFLSH:
            self.output.forget_echoes()
            self.flush()
            self.discard()
        if self.modes.iflag & IXON:
            self.output.start()
        if self.modes.lflag & ECHO:
            self.output.echo(byte)
        else:
            self.output.flush_echoes()

    def _any_starts(self) -> None:
        both = IXON | IXANY
        if self.output.stopped and not self.output.held and self.modes.iflag & both == both:
            self.start_output()

    def start_output(self) -> None:
        """Let what a key has stopped go on."""
        self.output.start()
        self.output.flush_echoes()

    # Keys of the line

    def _return(self, byte: int) -> None:
        if self.modes.iflag & IGNCR:
            self._any_starts()
        else:
            self._key(NEWLINE)

    def _newline_as_return(self, byte: int) -> None:
        self._key(RETURN)

    def _key(self, byte: int) -> None:
        """A byte as it is after the translation of line ends: a key that edits or ends a line, or data after all."""
        self._any_starts()
        edit = self._editing.get(byte)
        if edit is not None:
            edit(byte)
            return
        if self.modes.lflag & ECHO:
            self._finish_erasing()
            if byte == NEWLINE:
                self.output.echo_raw(byte)
            else:
                self._echo_data(byte)
        self.lines.typed.append(byte)

    def _newline(self, byte: int) -> None:
        if self.modes.lflag & (ECHO | ECHONL):
            self.output.echo_raw(byte)
        self.lines.end_line(byte)

    def _end_of_file(self, byte: int) -> None:
        self.lines.end_line(0)

    def _end_line(self, byte: int) -> None:
        if self.modes.lflag & ECHO:
            self._echo_data(byte)
        self._double_mark(byte)
        self.lines.end_line(byte)

    def _quote_next(self, byte: int) -> None:
        self._literal = True
        if self.modes.lflag & ECHO:
            self._finish_erasing()
            if self.modes.lflag & ECHOCTL:
                self.output.echo_raw(ord("^"))
                self.output.echo_raw(BACKSPACE)

    def _reprint(self, byte: int) -> None:
        self._finish_erasing()
        self.output.echo(byte)
        self.output.echo_raw(NEWLINE)
        for one in self.lines.typed[self.lines.readable :]:
            self.output.echo(one)

    # Taking back

    def _erase(self, key: int) -> None:
        """Take back a character, a word or the line. Of equal keys the first counts (eraser)."""
        if not self.lines.editable:
            return
        if key == self.modes.cc[VERASE]:
            self._erase_character(self._last_character(), by_key=True)
        elif key == self.modes.cc[VWERASE]:
            self._erase_word()
        else:
            self._kill()
        if not self.lines.editable and self.modes.lflag & ECHO:
            self._finish_erasing()

    def _last_character(self) -> int:
        """Where the last character of the line begins; -1 if there is none that is whole."""
        typed, at = self.lines.typed, len(self.lines.typed) - 1
        while at > self.lines.readable and self.output.continues(typed[at]):
            at -= 1
        return at if at >= self.lines.readable and not self.output.continues(typed[at]) else -1

    def _erase_character(self, at: int, *, by_key: bool = False) -> None:
        """Take back the character that begins at `at`, the last one; `by_key`: it alone was meant."""
        if at >= 0:
            character = bytes(self.lines.typed[at:])
            del self.lines.typed[at:]
            if self.modes.lflag & ECHO:
                self._show_erased(character, by_key)

    def _erase_word(self) -> None:
        seen = False
        while (at := self._last_character()) >= 0:
            if is_word(self.lines.typed[at]):
                seen = True
            elif seen:
                return
            self._erase_character(at)

    def _kill(self) -> None:
        lflag = self.modes.lflag
        if lflag & ECHO and lflag & _WIPES == _WIPES:
            while (at := self._last_character()) >= 0:
                self._erase_character(at)
            return
        del self.lines.typed[self.lines.readable :]
        if lflag & ECHO:
            self._finish_erasing()
            self.output.echo(self.modes.cc[VKILL])
            if lflag & ECHOK:
                self.output.echo_raw(NEWLINE)

    def _finish_erasing(self) -> None:
        if self._erasing:
            self._erasing = False
            self.output.echo_raw(ord("/"))

    def _show_erased(self, character: bytes, by_key: bool) -> None:
        """Show that a character is gone: by printing it again, by the key, or by wiping it out."""
        output, lflag, byte = self.output, self.modes.lflag, character[0]
        if lflag & ECHOPRT:
            if not self._erasing:
                output.echo_raw(ord("\\"))
                self._erasing = True
            output.echo(byte)
            for more in character[1:]:
                output.echo_raw(more)
                output.move_back()
        elif by_key and not lflag & ECHOE:
            output.echo(self.modes.cc[VERASE])
        elif byte == TAB:
            self._erase_tab()
        else:
            width = 1 if not is_control(byte) else 2 if lflag & ECHOCTL else 0
            for wiped in b"\b \b" * width:
                output.echo_raw(wiped)

    def _erase_tab(self) -> None:
        """Count the columns between the tab and the tab or the beginning of the line before it."""
        columns = 0
        for byte in reversed(self.lines.typed[self.lines.readable :]):
            if byte == TAB:
                self.output.erase_tab(columns, True)
                return
            if is_control(byte):
                columns += 2 if self.modes.lflag & ECHOCTL else 0
            elif not self.output.continues(byte):
                columns += 1
        self.output.erase_tab(columns, False)

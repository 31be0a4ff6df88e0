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
from loadstone.vfs.terminal_output import TAB, TerminalOutput, is_control, is_word, to_lower

if TYPE_CHECKING:
    from collections.abc import Callable

BUFFER_SIZE: Final = 4096  # N_TTY_BUF_SIZE; one byte of it is for the end of a line
SIGINT, SIGQUIT, SIGTSTP = 2, 3, 20
NEWLINE, RETURN = 0x0A, 0x0D


class LineDiscipline:
    """The keys that were typed and not read yet, and how they become input.

    In canonical mode bytes can be read up to the last end of a line; the rest is still being edited. `ends` has the
    positions in `typed` of the bytes that end lines; of these, a 0 is an end of file and not data.

    Attributes:
        modes: replaced by `set_modes` only.
        output: where echoes go.
        typed: what was typed and not read.
        signal: called with the number that a key sends to the foreground group.
        flush: called when a signal throws away what was typed, and what the program wrote and nobody has read.
    """

    __slots__ = (
        "_erasing", "_literal", "_readable", "_special", "ends", "flush", "modes", "output", "signal", "typed",
    )  # fmt: skip

    def __init__(self, output: TerminalOutput, signal: Callable[[int], None], flush: Callable[[], None]) -> None:
        self.output = output
        self.modes = output.modes
        self.signal = signal
        self.flush = flush
        self.typed = bytearray()
        self.ends: list[int] = []
        self._readable = 0  # canonical: bytes up to the last end of a line (canon_head)
        self._literal = False  # the next byte is data, after LNEXT
        self._erasing = False  # between \ and / of ECHOPRT
        self._special = self.modes.special()

    @property
    def canonical(self) -> bool:
        """Whether input comes in lines."""
        return bool(self.modes.lflag & ICANON) and not self.modes.lflag & EXTPROC

    def set_modes(self, modes: Modes) -> None:
        """Take new modes; what was typed changes its meaning, as n_tty_set_termios() has it."""
        old, self.modes = self.modes, modes
        self.output.modes = modes
        self._special = modes.special()
        if (old.lflag ^ modes.lflag) & (ICANON | EXTPROC):
            self._readable = len(self.typed)
            self.ends = [self._readable - 1] if self.typed else []
            self._erasing = self._literal = False
        if old.iflag & IXON and not modes.iflag & IXON:
            self.start_output()

    # What the program reads

    def available(self) -> int:
        """Bytes that a read finds; in canonical mode an end of file is none."""
        if not self.canonical:
            return len(self.typed)
        marks = sum(1 for at in self.ends if not self.typed[at])
        return self._readable - marks

    def reach(self) -> int:
        """How far reads may go: ends of file counted as bytes. It grows when there is more for a reader."""
        return self._readable if self.canonical else len(self.typed)

    def has_input(self, minimum: int = 1) -> bool:
        """Whether a read need not wait: a line, or an end of file, or `minimum` bytes."""
        return self.reach() >= (1 if self.canonical else minimum)

    def take(self, count: int) -> bytes:
        """Up to `count` bytes; of one line in canonical mode. b"" is the end of file."""
        if not self.canonical:
            return self._remove(min(count, len(self.typed)), 0)
        end = self.ends[0] if self.ends else self._readable
        if end >= count:
            # What has just filled the reader's buffer takes a following end of file with it (canon_skip_eof).
            skipped = end == count and end in self.ends and not self.typed[end]
            return self._remove(min(count, self._readable), 1 if skipped else 0)
        is_mark = end < self._readable and not self.typed[end]
        return self._remove(end, 1) if is_mark else self._remove(min(end + 1, self._readable), 0)

    def _remove(self, count: int, marks: int) -> bytes:
        data = bytes(self.typed[:count])
        gone = count + marks
        del self.typed[:gone]
        self._readable = max(0, self._readable - gone)
        self.ends = [at - gone for at in self.ends if at >= gone]
        return data

    def discard(self) -> None:
        """Throw away what was typed (reset_buffer_flags)."""
        self.typed.clear()
        self.ends.clear()
        self._readable = 0
        self._erasing = False

    # What is typed

    def room(self) -> int:
        """How many bytes may be typed now; a line that is too long loses what follows, so there is always room."""
        used = len(self.typed) * (3 if self.modes.iflag & PARMRK else 1)
        if self.canonical and not self._readable:
            return BUFFER_SIZE
        return max(0, BUFFER_SIZE - 1 - used)

    def receive(self, data: bytes) -> None:
        """Take what was typed, `room()` bytes at most."""
        for byte in data:
            if self.canonical and not self._readable and len(self.typed) >= BUFFER_SIZE:
                self.typed.pop()
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
            self.typed.append(byte)
        elif byte in self._special:
            self._key(byte)
        else:
            self._data(byte)

    def _data(self, byte: int) -> None:
        """A byte that means nothing special (n_tty_receive_char)."""
        self._any_starts()
        if self.modes.lflag & ECHO:
            self._finish_erasing()
            self._echo_data(byte)
        if byte == 0xFF and self.modes.iflag & PARMRK:
            self.typed.append(byte)
        self.typed.append(byte)

    def _key(self, byte: int) -> None:
        """A byte that may mean something (n_tty_receive_char_special)."""
        modes, cc = self.modes, self.modes.cc
        if modes.iflag & IXON and byte in (cc[VSTART], cc[VSTOP]):
            if byte == cc[VSTART]:
                self.start_output()
            else:
                self.output.stop()
            return
        if modes.lflag & ISIG:
            for place, number in ((VINTR, SIGINT), (VQUIT, SIGQUIT), (VSUSP, SIGTSTP)):
                if byte == cc[place]:
                    self._signal_key(byte, number)
                    return
        self._any_starts()
        if byte == RETURN:
            if modes.iflag & IGNCR:
                return
            if modes.iflag & ICRNL:
                byte = NEWLINE
        elif byte == NEWLINE and modes.iflag & INLCR:
            byte = RETURN
        if modes.lflag & ICANON and self._edit(byte):
            return
        if modes.lflag & ECHO:
            self._finish_erasing()
            if byte == NEWLINE:
                self.output.echo_raw(byte)
            else:
                self._echo_data(byte)
        self.typed.append(byte)

    def _signal_key(self, byte: int, number: int) -> None:
        self.signal(number)
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

    def _echo_data(self, byte: int) -> None:
        if len(self.typed) == self._readable:
            self.output.start_of_line()
        self.output.echo(byte)

    # Editing

    def _edit(self, byte: int) -> bool:
        """A key that edits or ends a line (n_tty_receive_char_canon); False if it is none."""
        cc, lflag = self.modes.cc, self.modes.lflag
        extended = bool(lflag & IEXTEN)
        if byte in (cc[VERASE], cc[VKILL]) or (byte == cc[VWERASE] and extended):
            self._erase(byte)
        elif byte == cc[VLNEXT] and extended:
            self._quote_next()
        elif byte == cc[VREPRINT] and lflag & ECHO and extended:
            self._reprint(byte)
        elif byte == NEWLINE:
            if lflag & (ECHO | ECHONL):
                self.output.echo_raw(byte)
            self._end_line(byte)
        elif byte == cc[VEOF]:
            self._end_line(0)
        elif byte == cc[VEOL] or (byte == cc[VEOL2] and extended):
            if lflag & ECHO:
                self._echo_data(byte)
            if byte == 0xFF and self.modes.iflag & PARMRK:
                self.typed.append(byte)
            self._end_line(byte)
        else:
            return False
        return True

    def _end_line(self, byte: int) -> None:
        self.ends.append(len(self.typed))
        self.typed.append(byte)
        self._readable = len(self.typed)

    def _quote_next(self) -> None:
        self._literal = True
        if self.modes.lflag & ECHO:
            self._finish_erasing()
            if self.modes.lflag & ECHOCTL:
                self.output.echo_raw(0x5E)
                self.output.echo_raw(0x08)

    def _reprint(self, byte: int) -> None:
        self._finish_erasing()
        self.output.echo(byte)
        self.output.echo_raw(NEWLINE)
        for one in self.typed[self._readable :]:
            self.output.echo(one)

    def _finish_erasing(self) -> None:
        if self._erasing:
            self._erasing = False
            self.output.echo_raw(0x2F)

    def _erase(self, key: int) -> None:
        """Take back a character, a word or the line (eraser)."""
        typed, modes, lflag = self.typed, self.modes, self.modes.lflag
        if len(typed) == self._readable:
            return
        one = key == modes.cc[VERASE]
        word = not one and key == modes.cc[VWERASE]
        if not one and not word:
            if not lflag & ECHO:
                del typed[self._readable :]
                return
            if lflag & (ECHOK | ECHOKE | ECHOE) != ECHOK | ECHOKE | ECHOE:
                self._kill_unseen()
                return
        seen_word = False
        while len(typed) > self._readable:
            at = len(typed) - 1
            while self.output.continues(typed[at]) and at > self._readable:
                at -= 1
            if self.output.continues(typed[at]):
                break
            if word:
                if is_word(typed[at]):
                    seen_word = True
                elif seen_word:
                    break
            character = bytes(typed[at:])
            del typed[at:]
            if lflag & ECHO:
                self._show_erased(character, one)
            if one:
                break
        if len(typed) == self._readable and lflag & ECHO:
            self._finish_erasing()

    def _kill_unseen(self) -> None:
        """Kill the line without wiping it off the screen."""
        del self.typed[self._readable :]
        self._finish_erasing()
        self.output.echo(self.modes.cc[VKILL])
        if self.modes.lflag & ECHOK:
            self.output.echo_raw(NEWLINE)

    def _show_erased(self, character: bytes, one: bool) -> None:
        """Show that a character is gone: by printing it again, by the key, or by wiping it out."""
        output, lflag, byte = self.output, self.modes.lflag, character[0]
        if lflag & ECHOPRT:
            if not self._erasing:
                output.echo_raw(0x5C)
                self._erasing = True
            output.echo(byte)
            for more in character[1:]:
                output.echo_raw(more)
                output.move_back()
        elif one and not lflag & ECHOE:
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
        for byte in reversed(self.typed[self._readable :]):
            if byte == TAB:
                self.output.erase_tab(columns, True)
                return
            if is_control(byte):
                columns += 2 if self.modes.lflag & ECHOCTL else 0
            elif not self.output.continues(byte):
                columns += 1
        self.output.erase_tab(columns, False)

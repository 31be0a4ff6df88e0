"""A terminal's modes and the bits in them. Sources: include/uapi/asm-generic/termbits.h, termios(3)."""

from __future__ import annotations

from typing import Final

# Input modes
IGNBRK: Final = 0o1
BRKINT: Final = 0o2
PARMRK: Final = 0o10
ISTRIP: Final = 0o40
INLCR: Final = 0o100
IGNCR: Final = 0o200
ICRNL: Final = 0o400
IUCLC: Final = 0o1000
IXON: Final = 0o2000
IXANY: Final = 0o4000
IMAXBEL: Final = 0o20000
IUTF8: Final = 0o40000

# Output modes
OPOST: Final = 0o1
OLCUC: Final = 0o2
ONLCR: Final = 0o4
OCRNL: Final = 0o10
ONOCR: Final = 0o20
ONLRET: Final = 0o40
TABDLY: Final = 0o14000
XTABS: Final = 0o14000

# Control modes
CSIZE: Final = 0o60
CS8: Final = 0o60
CREAD: Final = 0o200
PARENB: Final = 0o400
B38400: Final = 0o17

# Local modes
ISIG: Final = 0o1
ICANON: Final = 0o2
ECHO: Final = 0o10
ECHOE: Final = 0o20
ECHOK: Final = 0o40
ECHONL: Final = 0o100
NOFLSH: Final = 0o200
TOSTOP: Final = 0o400
ECHOCTL: Final = 0o1000
ECHOPRT: Final = 0o2000
ECHOKE: Final = 0o4000
IEXTEN: Final = 0o100000
EXTPROC: Final = 0o200000

# Places in the array of control characters
VINTR, VQUIT, VERASE, VKILL, VEOF, VTIME, VMIN, VSWTC, VSTART, VSTOP, VSUSP, VEOL = range(12)
VREPRINT, VDISCARD, VWERASE, VLNEXT, VEOL2 = range(12, 17)

CONTROL_CHARACTERS: Final = b"\x03\x1c\x7f\x15\x04\0\x01\0\x11\x13\x1a\0\x12\x0f\x17\x16\0\0\0"
"""What a new terminal has (INIT_C_CC); 0 means that there is no such character."""

SPEED: Final = 38400


class Modes:
    """The modes of one terminal: `struct termios2`, its words by name. The default is a new terminal's.

    Attributes:
        iflag, oflag, cflag, lflag: bits for input, output, the line and editing.
        line: the number of the line discipline.
        cc: the control characters, 19 bytes.
        ispeed, ospeed: in baud; they slow nothing down.
    """

    __slots__ = ("cc", "cflag", "iflag", "ispeed", "lflag", "line", "oflag", "ospeed")

    def __init__(self) -> None:
        self.iflag = ICRNL | IXON
        self.oflag = OPOST | ONLCR
        self.cflag = B38400 | CS8 | CREAD
        self.lflag = ISIG | ICANON | ECHO | ECHOE | ECHOK | ECHOCTL | ECHOKE | IEXTEN
        self.line = 0
        self.cc = CONTROL_CHARACTERS
        self.ispeed = self.ospeed = SPEED

    @property
    def minimum(self) -> int:
        """VMIN: how many bytes a read of a terminal without lines waits for."""
        return self.cc[VMIN]

    @property
    def time_ns(self) -> int:
        """VTIME, in nanoseconds."""
        return self.cc[VTIME] * 100_000_000

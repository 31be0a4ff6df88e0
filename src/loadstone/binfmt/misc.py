"""binfmt_misc: formats that are registered while the machine runs, by magic number or by extension (fs/binfmt_misc.c).

A format is registered with one string, whose first byte is the delimiter of its fields:

    :name:M:offset:magic:mask:interpreter:flags      the `magic` bytes, where `mask` has ones, stand at `offset`
    :name:E::extension::interpreter:flags            the file's name ends in `.extension`

Flags: P keeps argv[0], O hands the file over as a descriptor (AT_EXECFD), C takes the credentials from the file and not
from the interpreter (and does what O does), F opens the interpreter at registration. See
Documentation/admin-guide/binfmt-misc.rst.
"""

from __future__ import annotations

from errno import EEXIST, EINVAL, ENAMETOOLONG
from typing import TYPE_CHECKING, Any, Final

from loadstone.errors import LinuxError

if TYPE_CHECKING:
    from collections.abc import Callable

SHORTEST: Final = 11  # bytes of a registration
LONGEST: Final = 1920  # MAX_REGISTER_LENGTH
_NAME_MAX: Final = 255
_INT_MAX: Final = (1 << 31) - 1
_HEX = b"0123456789abcdefABCDEF"

PRESERVE_ARGV0, OPEN_BINARY, CREDENTIALS, OPEN_FILE = 1, 2, 4, 8
# C implies O. In the order in which the kernel shows them.
_FLAGS = {"P": PRESERVE_ARGV0, "O": OPEN_BINARY, "C": CREDENTIALS | OPEN_BINARY, "F": OPEN_FILE}
_SHOWN = (("P", PRESERVE_ARGV0), ("O", OPEN_BINARY), ("C", CREDENTIALS), ("F", OPEN_FILE))

# What a write to a file of binfmt_misc asks for (parse_command).
NOTHING, DISABLE, ENABLE, REMOVE = range(4)
_COMMANDS = {b"0": DISABLE, b"1": ENABLE, b"-1": REMOVE}


class MiscFormat:
    """One registered format.

    Attributes:
        name: its file's name.
        offset: where `magic` stands in the file; not looked at for an extension.
        magic: the bytes; empty for a format that goes by `extension`.
        mask: as long as `magic`: the bits that count; None: all do.
        extension: what follows the last dot of the path; empty for a format that goes by magic.
        interpreter: the path that is executed instead.
        flags: PRESERVE_ARGV0 and so on.
        enabled: whether it takes files.
        opened: with OPEN_FILE, whatever the registration's `open_interpreter` gave.
        number: how many were registered before it, removed ones included.
    """

    __slots__ = ("enabled", "extension", "flags", "interpreter", "magic", "mask", "name", "number", "offset", "opened")

    def __init__(self, name: bytes) -> None:
        self.name = name
        self.offset = 0
        self.magic = b""
        self.mask: bytes | None = None
        self.extension = b""
        self.interpreter = b""
        self.flags = 0
        self.enabled = True
        self.opened: Any = None
        self.number = 0

    def matches(self, head: bytes, extension: bytes | None) -> bool:
        """Whether a file that begins with `head` and whose path ends in `.extension` (None: has no dot) is of it."""
        if not self.magic:
            return extension == self.extension
        there = head[self.offset : self.offset + len(self.magic)]
        if self.mask is None:
            return there == self.magic
        return all(not (a ^ b) & mask for a, b, mask in zip(there, self.magic, self.mask, strict=True))

    def text(self) -> bytes:
        """What its file shows (entry_status)."""
        flags = "".join(letter for letter, bit in _SHOWN if self.flags & bit)
        lines = [b"enabled" if self.enabled else b"disabled", b"interpreter " + self.interpreter]
        lines.append(f"flags: {flags}".encode())
        if not self.magic:
            lines.append(b"extension ." + self.extension)
        else:
            lines += [f"offset {self.offset}".encode(), b"magic " + self.magic.hex().encode()]
            if self.mask is not None:
                lines.append(b"mask " + self.mask.hex().encode())
        return b"\n".join(lines) + b"\n"


class MiscFormats:
    """The registered formats of a machine. The one registered last is asked first."""

    __slots__ = ("_registered", "buffer_size", "enabled", "formats")

    def __init__(self, buffer_size: int) -> None:
        """`buffer_size`: BINPRM_BUF_SIZE, in which a magic number has to lie."""
        self.buffer_size = buffer_size
        self.enabled = True
        self.formats: list[MiscFormat] = []
        self._registered = 0

    def find(self, name: bytes) -> MiscFormat | None:
        """The format of that name."""
        return next((one for one in self.formats if one.name == name), None)

    def search(self, head: bytes, path: bytes) -> MiscFormat | None:
        """The format that takes a file: `head` its first `buffer_size` bytes, `path` the name it is executed by."""
        if not self.enabled:
            return None
        _, dot, rest = path.rpartition(b".")
        extension = rest if dot else None
        return next((one for one in self.formats if one.enabled and one.matches(head, extension)), None)

    def register(self, text: bytes, open_interpreter: Callable[[bytes], object]) -> None:
        """Take a registration (bm_register_write).

        Args:
            text: all that is written to `register` in one call.
            open_interpreter: opens a path for execution; asked for formats with flag F, its errors are passed on.

        Raises:
            LinuxError: EINVAL, EEXIST, ENAMETOOLONG.
        """
        made = parse(text, self.buffer_size)
        if made.flags & OPEN_FILE:
            made.opened = open_interpreter(made.interpreter)
        if len(made.name) > _NAME_MAX:
            raise LinuxError(ENAMETOOLONG, f"the name is longer than {_NAME_MAX} bytes")
        if made.name in (b"status", b"register") or self.find(made.name) is not None:
            raise LinuxError(EEXIST, f"there is a format called {made.name.decode(errors='replace')} already")
        made.number = self._registered
        self._registered += 1
        self.formats.insert(0, made)

    def control(self, text: bytes) -> None:
        """What is written to `status`: 1 and 0 switch all formats on and off, -1 removes them."""
        asked = command(text)
        if asked == REMOVE:
            self.formats.clear()
        elif asked != NOTHING:
            self.enabled = asked == ENABLE

    def control_one(self, one: MiscFormat, text: bytes) -> None:
        """What is written to the file of one format."""
        asked = command(text)
        if asked == REMOVE:
            if one in self.formats:
                self.formats.remove(one)
        elif asked != NOTHING:
            one.enabled = asked == ENABLE


def command(text: bytes) -> int:
    """NOTHING, DISABLE, ENABLE or REMOVE for `0`, `1` and `-1`, with or without a newline; EINVAL (parse_command)."""
    if not text:
        return NOTHING
    asked = _COMMANDS.get(text.removesuffix(b"\n")) if len(text) <= 3 else None
    if asked is None:
        raise LinuxError(EINVAL, "write 1 to enable, 0 to disable, -1 to remove")
    return asked


def parse(text: bytes, buffer_size: int) -> MiscFormat:
    """The format that a registration describes (create_entry).

    Raises:
        LinuxError: EINVAL, with the reason.
    """
    if not SHORTEST <= len(text) <= LONGEST:
        raise _invalid(f"a registration has from {SHORTEST} to {LONGEST} bytes")
    if text[:1] in (b"P", b"O", b"C", b"F"):
        raise _invalid("a letter of the flags cannot be the delimiter")
    fields = _Fields(text)
    made = MiscFormat(fields.next("name"))
    if made.name in (b"", b".", b"..") or b"/" in made.name:
        raise _invalid("the name cannot be that of a file")
    kind = fields.letter()
    if kind == b"M":
        _parse_magic(made, fields, buffer_size)
    elif kind == b"E":
        _parse_extension(made, fields)
    else:
        raise _invalid("the type is neither M (magic) nor E (extension)")
    made.interpreter = fields.next("interpreter")
    if not made.interpreter:
        raise _invalid("there is no interpreter")
    made.flags = fields.flags()
    return made


def _parse_magic(made: MiscFormat, fields: _Fields, buffer_size: int) -> None:
    made.offset = _offset(fields.next("offset"))
    magic, mask = fields.escaped("magic"), fields.escaped("mask")
    if not magic[:1].strip(b"\0"):
        raise _invalid("there is no magic number")
    made.magic = unescape(magic)
    if mask[:1].strip(b"\0"):
        made.mask = unescape(mask)
        if len(made.mask) != len(made.magic):
            raise _invalid(f"the magic number has {len(made.magic)} bytes, the mask {len(made.mask)}")
    if len(made.magic) + made.offset > buffer_size:
        raise _invalid(f"the magic number does not lie in the first {buffer_size} bytes")


def _parse_extension(made: MiscFormat, fields: _Fields) -> None:
    fields.next("offset")
    made.extension = fields.next("extension")
    if not made.extension or b"/" in made.extension:
        raise _invalid("there is no extension, or it has a slash")
    fields.next("mask")


class _Fields:
    """A registration as the kernel walks over it: the text and eight more delimiters, so that every field ends."""

    __slots__ = ("_at", "_end", "_text", "delimiter")

    def __init__(self, text: bytes) -> None:
        self.delimiter = text[:1]
        self._text = text + self.delimiter * 8
        self._end = len(text)
        self._at = 1

    def next(self, what: str) -> bytes:
        """The field up to the next delimiter, which no NUL may precede (strchr)."""
        end = self._text.find(self.delimiter, self._at)
        field = self._text[self._at : end]
        if end < 0 or b"\0" in field:
            raise _invalid(f"the field {what} does not end")
        self._at = end + 1
        return field

    def letter(self) -> bytes:
        """A field of one byte."""
        found = self._text[self._at : self._at + 1]
        if self._text[self._at + 1 : self._at + 2] != self.delimiter:
            return b""
        self._at += 2
        return found

    def escaped(self, what: str) -> bytes:
        r"""A field in which `\x` and two digits stand for a byte and hide a delimiter (scanarg); NULs may be in it."""
        text, start = self._text, self._at
        at = start
        while text[at : at + 1] != self.delimiter:
            if at >= len(text):
                raise _invalid(f"the field {what} does not end")
            if text[at : at + 2] == b"\\x":
                digits = text[at + 2 : at + 4]
                if len(digits) < 2 or digits[0] not in _HEX or digits[1] not in _HEX:
                    raise _invalid(f"\\x in the field {what} is not followed by two hexadecimal digits")
                at += 3
            at += 1
        self._at = at + 1
        return text[start:at]

    def flags(self) -> int:
        """The last field: letters, and perhaps a newline, up to the text's very end."""
        found = 0
        while (letter := chr(self._text[self._at])) in _FLAGS:
            found |= _FLAGS[letter]
            self._at += 1
        if self._text[self._at : self._at + 1] == b"\n":
            self._at += 1
        if self._at != self._end:
            raise _invalid("after the interpreter and its delimiter there are the flags P, O, C, F and nothing else")
        return found


def unescape(text: bytes) -> bytes:
    r"""`\x` and one or two digits become a byte; the first NUL ends the text (string_unescape with UNESCAPE_HEX)."""
    text = text.partition(b"\0")[0]
    done = bytearray()
    at = 0
    while at < len(text):
        digits = text[at + 2 : at + 4]
        if text[at : at + 2] == b"\\x" and digits and digits[0] in _HEX:
            if len(digits) > 1 and digits[1] not in _HEX:
                digits = digits[:1]
            done.append(int(digits, 16))
            at += 2 + len(digits)
            continue
        # A backslash takes the byte after it along, so that in `\\x41` nothing is escaped.
        step = 2 if text[at] == 0x5C else 1
        done += text[at : at + step]
        at += step
    return bytes(done)


def _offset(text: bytes) -> int:
    """A decimal number of an `int`, perhaps with a sign and a closing newline (kstrtoint); no text is 0."""
    if not text:
        return 0
    digits = text.removesuffix(b"\n")
    if digits[:1] in (b"+", b"-"):
        digits = digits[1:]
    value = int(digits) if digits.isdigit() and len(digits) < LONGEST else -1
    if not 0 <= value <= _INT_MAX or (text[:1] == b"-" and value):
        raise _invalid("the offset is not a number of bytes")
    return value


def _invalid(why: str) -> LinuxError:
    return LinuxError(EINVAL, why)

"""Text that came from a program, made fit for a terminal."""

from __future__ import annotations


def printable(text: str) -> str:
    r"""`text` with all that a terminal might obey written out: `\x1b`, `\n`; `\xff` for a byte that is no UTF-8."""
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else _escape(letter) for letter in text)


def _escape(letter: str) -> str:
    code = ord(letter)
    if 0xDC80 <= code <= 0xDCFF:  # surrogateescape
        code -= 0xDC00
    short = {9: "\\t", 10: "\\n", 13: "\\r"}.get(code)
    return short or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}")

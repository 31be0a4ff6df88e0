"""What option values mean: sizes, seconds, lists. Each raises ArgumentTypeError with a sentence."""

from __future__ import annotations

from argparse import ArgumentTypeError

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
SMALLEST_MEMORY = 1 << 20
SMALL_STACK = 256 << 10  # with it execve() still takes 128 KiB of arguments, the least it ever does
UNLIMITED = (1 << 64) - 1  # RLIM_INFINITY
MOST_JOBS = 256
LARGEST_MEMORY = 1 << 46  # physical addresses that a page-table entry here can hold


def size(text: str) -> int:
    """`64K`, `512M`, `1G`, `4096`: bytes, in powers of 1,024; `KiB` and `kB` spellings are taken as well."""
    number = text.strip().upper().removesuffix("B").removesuffix("I")
    unit = number[-1:] if number[-1:] in _UNITS and not number[-1:].isdigit() else ""
    digits = number.removesuffix(unit) if unit else number
    if not (digits.isascii() and digits.isdigit()):
        raise ArgumentTypeError(f"{text!r} is not a size; write 64K, 512M or 1G")
    return int(digits) * _UNITS[unit]


def memory(text: str) -> int:
    """The machine's memory, in bytes."""
    value = size(text)
    if not SMALLEST_MEMORY <= value <= LARGEST_MEMORY:
        raise ArgumentTypeError(f"{text!r} is out of range; a machine has from 1M to 64T of memory")
    return value


def stack_limit(text: str) -> int:
    """RLIMIT_STACK in bytes: a size, `small` or `unlimited`."""
    words = {"small": SMALL_STACK, "unlimited": UNLIMITED}
    try:
        value = words[text] if text in words else size(text)
    except ArgumentTypeError:
        value = -1
    if not 0 <= value <= UNLIMITED:
        raise ArgumentTypeError(f"{text!r} is neither small nor unlimited nor a size such as 8M, below 2^64 bytes")
    return value


def path(text: str) -> str:
    """A path of the host's or the guest's: anything but nothing."""
    if not text:
        raise ArgumentTypeError("the path is empty")
    return text


def fault_around(text: str) -> int:
    """Bytes mapped around a file fault: a power of two of at least a page."""
    try:
        value = size(text)
    except ArgumentTypeError:
        value = 0
    if value < 4096 or value & (value - 1) or value > 1 << 21:
        raise ArgumentTypeError(f"{text!r} is not a power of two from 4K (pure demand paging) to 2M; Linux has 64K")
    return value


def fill_ahead(text: str) -> int | None:
    """Pages that a fault on new memory may fill: a number, `off` (0) or `auto` (None)."""
    if text in ("auto", "off"):
        return None if text == "auto" else 0
    if not text.isdecimal() or not 2 <= int(text) <= 512:
        raise ArgumentTypeError(f"{text!r} is neither auto nor off nor a number of pages from 2 to 512")
    return int(text)


def seconds(text: str) -> float:
    """A positive number of seconds; `s`, `m` and `h` may follow, as for timeout(1)."""
    units = {"s": 1, "m": 60, "h": 3600}
    unit = units.get(text[-1:], 0)
    try:
        value = float(text[:-1] if unit else text) * (unit or 1)
    except ValueError:
        value = -1.0
    if not 0 < value < 1e9:
        raise ArgumentTypeError(f"{text!r} is not a number of seconds above 0 and below 10^9")
    return value


def moment(text: str) -> int:
    """A time since the start, in ns: a number with its unit, ns, us, ms or s."""
    units = {"ns": 1, "us": 1_000, "ms": 1_000_000, "s": 1_000_000_000}
    unit = next((unit for unit in units if text.endswith(unit)), "")
    try:
        value = float(text.removesuffix(unit)) * units[unit]
    except (KeyError, ValueError):
        value = -1.0
    if not 0 <= value < 1e18:
        raise ArgumentTypeError(f"{text!r} is not a time such as 430ms: a number of ns, us, ms or s")
    return round(value)


def positive(text: str) -> int:
    """A number of at least 1."""
    return _number(text, 1, (1 << 64) - 1, "1 to 2^64 - 1")


def jobs(text: str) -> int:
    """How many processes share the work."""
    return _number(text, 1, MOST_JOBS, f"1 to {MOST_JOBS}")


def integer(text: str) -> int:
    """A number, decimal or 0x…, from 0 to 2^64 - 1."""
    return _number(text, 0, (1 << 64) - 1, "0 to 2^64 - 1")


def _number(text: str, least: int, most: int, allowed: str) -> int:
    try:
        value = int(text, 0)
    except ValueError:
        value = -1
    if not least <= value <= most:
        raise ArgumentTypeError(f"{text!r} is not a number from {allowed}")
    return value


def kinds(text: str) -> tuple[str, ...]:
    """A comma-separated choice of what to trace."""
    from loadstone.observe.trace import KINDS

    wanted = [kind.strip() for kind in text.split(",") if kind.strip()]
    for kind in wanted:
        if kind not in KINDS:
            raise ArgumentTypeError(f"nothing called {kind!r} can be traced; choose from {','.join(KINDS)}")
    if not wanted:
        raise ArgumentTypeError(f"say what to trace: {','.join(KINDS)}")
    return tuple(kind for kind in KINDS if kind in wanted)


def variable(text: str) -> tuple[str, str]:
    """`NAME=VALUE`."""
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise ArgumentTypeError(f"{text!r} is not of the form NAME=VALUE")
    return name, value


def bind(text: str) -> tuple[str, str]:
    """`SRC:DST`, DST absolute; without DST the same path in the guest."""
    source, colon, target = text.partition(":")
    target = target if colon else source
    if not source or not target.startswith("/"):
        raise ArgumentTypeError(f"{text!r} is not of the form SRC:DST with an absolute DST")
    return source, target

"""Times and what was taken of them in system calls' arguments, as strace(1) shows them."""

from __future__ import annotations

from struct import Struct
from time import gmtime, strftime

from loadstone.linux.strace.values import Formatter, Subject, address, whole

_TWO = Struct("<qq")
_FOUR = Struct("<4q")
_RUSAGE = Struct("<16q")
_EINTR, _RESTART_BLOCK = 4, 516
_SPECIAL = {(1 << 30) - 1: "UTIME_NOW", (1 << 30) - 2: "UTIME_OMIT"}


def time_spec(data: bytes, fraction: str) -> str:
    """A struct timespec or timeval; `fraction`: tv_nsec or tv_usec."""
    seconds, rest = _TWO.unpack(data)
    return f"{{tv_sec={seconds}, {fraction}={rest}}}"


def _of(fraction: str) -> Formatter:
    def formatter(subject: Subject) -> str:
        data = whole(subject, _TWO) if subject.value else None
        return address(subject) if data is None else time_spec(data, fraction)

    return formatter


def remaining(subject: Subject) -> str:
    """The rest of a sleep: written only where it was interrupted."""
    data = whole(subject, _TWO) if subject.value and -subject.result in (_EINTR, _RESTART_BLOCK) else None
    return address(subject) if data is None else time_spec(data, "tv_nsec")


def _interval_of(fraction: str) -> Formatter:
    def formatter(subject: Subject) -> str:
        data = whole(subject, _FOUR) if subject.value else None
        if data is None:
            return address(subject)
        return f"{{it_interval={time_spec(data[:16], fraction)}, it_value={time_spec(data[16:], fraction)}}}"

    return formatter


def dated_times(subject: Subject) -> str:
    """Two times of a file, with their dates, or the special values of utimensat(2)."""
    data = whole(subject, _FOUR) if subject.value else None
    if data is None:
        return address(subject)
    values = _FOUR.unpack(data)
    return f"[{_dated(*values[:2])}, {_dated(*values[2:])}]"


def _dated(seconds: int, nanoseconds: int) -> str:
    if nanoseconds in _SPECIAL:
        return _SPECIAL[nanoseconds]
    try:
        date = strftime("%Y-%m-%dT%H:%M:%S", gmtime(seconds))
    except (OverflowError, OSError, ValueError):
        return f"{{tv_sec={seconds}, tv_nsec={nanoseconds}}}"
    fraction = f".{nanoseconds:09}" if nanoseconds else ""
    return f"{{tv_sec={seconds}, tv_nsec={nanoseconds}}} /* {date}{fraction}+0000 */"


def rusage(subject: Subject) -> str:
    """struct rusage."""
    data = whole(subject, _RUSAGE) if subject.value and subject.result >= 0 else None
    if data is None:
        return address(subject)
    return f"{{ru_utime={time_spec(data[:16], 'tv_usec')}, ru_stime={time_spec(data[16:32], 'tv_usec')}, ...}}"


def tms(subject: Subject) -> str:
    """struct tms."""
    data = whole(subject, _FOUR) if subject.value else None
    if data is None:
        return address(subject)
    names = ("tms_utime", "tms_stime", "tms_cutime", "tms_cstime")
    return "{" + ", ".join(f"{name}={value}" for name, value in zip(names, _FOUR.unpack(data), strict=True)) + "}"


TIMES: dict[str, Formatter] = {
    "timespec": _of("tv_nsec"),
    "timeval": _of("tv_usec"),
    "itimer": _interval_of("tv_usec"),
    "itimerspec": _interval_of("tv_nsec"),
    "out_itimerspec": _interval_of("tv_nsec"),
    "timespecs": dated_times,
    "remaining": remaining,
    "rusage": rusage,
    "tms": tms,
}

"""The entry point: picks the command, and turns what goes wrong into one line and an exit status."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from errno import EDQUOT, EFBIG, EIO, EMFILE, ENFILE, ENOMEM, ENOSPC
from importlib import import_module
from typing import NamedTuple, NoReturn, TextIO

from loadstone.errors import HostError, LinuxError

OWN_FAILURE = 125
INTERRUPTED = 130
CLOSED_PIPE = 141  # 128 + SIGPIPE, as for any program that writes to a reader that left
_NO_MEMORY = (
    "this host has no memory left for Loadstone",
    "try a smaller --memory, a higher ulimit -v, or end other programs",
)


class Command(NamedTuple):
    """One row of the command table. `module` has `main(argv) -> exit status`; it is imported when the row is chosen."""

    name: str
    module: str
    summary: str


COMMANDS = (
    Command("run", "loadstone.cli.run", "run a program; its output and exit status are the program's own"),
    Command("explain", "loadstone.cli.explain", "tell how execve() would load a program, running none of it"),
    Command("where", "loadstone.cli.where", "follow one place through file, memory and frames"),
    Command("timeline", "loadstone.cli.timeline", "draw who ran on which CPU when, from a record of events"),
    Command("maps", "loadstone.cli.maps", "print a program's memory map as /proc/PID/maps would"),
    Command("verify", "loadstone.cli.verify", "compare a program's image with the host kernel's"),
    Command("doctor", "loadstone.cli.doctor", "say what this host offers and what is missing"),
)

_EXAMPLES = """\
Examples:
  loadstone run --stats /bin/ls -l       run ls, then show what loading it cost
  loadstone explain /bin/ls              the exec, step by step
  loadstone where /bin/ls main --at main where main is: file, VMA, tables, frame
  loadstone run --timeline t.svg make    a picture of make's processes over time

`loadstone COMMAND --help` says what each takes. Exit status: the program's;
128+N killed by signal N; 127 not found; 126 cannot be executed; 124 out of
time; 125 Loadstone itself could not go on.
"""


def main() -> NoReturn:
    """Run this process's command line and end the process.

    Without the interpreter's own farewell, which would take 5 ms to free what the kernel frees at once; everything that
    has to be put back (files, the terminal) is put back by `with` before. Until a program runs nothing is worth a
    garbage collection either.
    """
    gc.disable()
    status = run_command(sys.argv[1:])
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            if stream is not None:
                stream.flush()
    os._exit(status)


def run_command(argv: Sequence[str]) -> int:
    """Run one command line and return the exit status. Never raises."""
    _fill_closed_descriptors()
    try:
        status = _dispatch(list(argv))
        if sys.stdout is not None:
            sys.stdout.flush()
        return status
    except BrokenPipeError:
        _abandon_stdout()
        return CLOSED_PIPE
    except SystemExit as end:  # argparse's way to say that help was shown
        return end.code if isinstance(end.code, int) else 0
    except KeyboardInterrupt:
        return INTERRUPTED
    except (HostError, LinuxError) as error:
        complain(*(error.args if isinstance(error, HostError) else (str(error),)))
        return OWN_FAILURE
    except OSError as error:
        _explain_host_error(error)
        return OWN_FAILURE
    except MemoryError:
        complain(*_NO_MEMORY)
        return OWN_FAILURE
    except Exception as error:
        _confess(error)
        return OWN_FAILURE


def _explain_host_error(error: OSError) -> None:
    """What the host refused Loadstone itself: room, memory, descriptors. Anything else is a bug."""
    if error.errno in (ENOSPC, EDQUOT, EIO):
        complain(f"what there is to say cannot be written: {error.strerror}")
    elif error.errno == ENOMEM:
        complain(*_NO_MEMORY)
    elif error.errno in (EMFILE, ENFILE):
        complain(f"the host gives Loadstone no more descriptors: {error.strerror}", "raise the limit: ulimit -n")
    elif error.errno == EFBIG:  # the machine's memory is a file, too
        complain(
            f"the host lets Loadstone make no file of that size: {error.strerror}",
            "raise the limit, ulimit -f, or lower it in the machine: loadstone run sh -c 'ulimit -f 1; ...'",
        )
    else:
        _confess(error)


def complain(problem: object, hint: object = "", *_: object) -> None:
    """One sentence on stderr, and a second line with what to do about it."""
    say(*(str(text) for text in (problem, hint) if text))


def say(*lines: str) -> None:
    """Lines of Loadstone's own on stderr, each beginning with `loadstone: `; control characters are written out."""
    from loadstone.observe.text import printable

    text = "".join(f"loadstone: {printable(line)}\n" for line in lines)
    with suppress(OSError, ValueError):  # nobody may be there to read it
        if sys.stderr is not None:
            sys.stderr.write(text)
            sys.stderr.flush()


def output() -> TextIO:
    """Standard output, for a report. Raises HostError where it is closed."""
    if sys.stdout is None:
        raise HostError("standard output is closed: there is nowhere to write to")
    return sys.stdout


def _fill_closed_descriptors() -> None:
    """Put an O_PATH descriptor, which can be neither read nor written, where one of 0, 1 and 2 is closed.

    Else the next file that Loadstone opens would get that number, and the program would write into it.
    """
    while True:
        fd = os.open("/", os.O_PATH)
        if fd > 2:
            os.close(fd)
            return


def _dispatch(argv: list[str]) -> int:
    if not argv:
        print(overview(), end="", file=sys.stderr)
        return OWN_FAILURE
    name, *rest = argv
    if name in ("--help", "-h") or (name == "help" and not rest):
        print(overview(), end="")
        return 0
    if name == "--version":
        from loadstone import __version__

        print(f"loadstone {__version__}")
        return 0
    if name == "help":
        name, rest = rest[0], ["--help"]
    command = next((command for command in COMMANDS if command.name == name), None)
    if command is None:
        raise HostError(f"there is no command {name!r}", _suggestion(name))
    return int(import_module(command.module).main(rest))


def overview() -> str:
    """The text of `loadstone --help`."""
    width = max(len(command.name) for command in COMMANDS)
    rows = "".join(f"  {command.name:<{width}}   {command.summary}\n" for command in COMMANDS)
    return (
        "usage: loadstone COMMAND ...\n\n"
        "Loads programs exactly as the kernel does, runs them on real page tables, and\n"
        "accounts for every page.\n\n"
        f"Commands:\n{rows}\n{_EXAMPLES}"
    )


def _suggestion(name: str) -> str:
    if name.startswith("-"):
        return "options come after the command: loadstone run --stats PROGRAM"
    if "/" in name or os.path.exists(name):
        return f"to run a program: loadstone run {name}"
    from difflib import get_close_matches

    close = get_close_matches(name, [command.name for command in COMMANDS], 1)
    names = ", ".join(command.name for command in COMMANDS)
    return f"did you mean `loadstone {close[0]}`?" if close else f"the commands are {names}"


def _abandon_stdout() -> None:
    """Point stdout at nothing, so that the interpreter's last flush does not complain about the closed pipe."""
    with suppress(OSError):
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, 1)
        os.close(nothing)


def _confess(error: Exception) -> None:
    """A bug of ours: where it is, in one line; all of it with LOADSTONE_DEBUG=1."""
    if os.environ.get("LOADSTONE_DEBUG", "0") not in ("", "0"):
        import traceback

        traceback.print_exc()
        return
    place = ""
    step = error.__traceback__
    while step is not None:
        file = step.tb_frame.f_code.co_filename
        if f"{os.sep}loadstone{os.sep}" in file:
            place = f" at {file.rpartition(f'{os.sep}loadstone{os.sep}')[2]}:{step.tb_lineno}"
        step = step.tb_next
    complain(
        f"a bug in Loadstone: {type(error).__name__}: {error}{place}",
        "LOADSTONE_DEBUG=1 shows the full traceback; please report it with the command line",
    )

"""`loadstone verify --faults PROGRAM [ARG]…`: a whole run's page faults beside the kernel's own trace."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from loadstone.cli import machine_options, values
from loadstone.cli.parser import Parser, program_words
from loadstone.cli.programs import cannot_execute
from loadstone.errors import HostError, LinuxError

if TYPE_CHECKING:
    from loadstone.api import Machine
    from loadstone.verify.faults import Comparison

DEFAULT_TIMEOUT = 60.0
DEFAULT_FAULT_AROUND = 1 << 16


def add_options(parser: Parser) -> None:
    """The options of this mode."""
    add = parser.group("Compare page faults")
    add("--faults", action="store_true", help="compare the page faults of the whole run with the kernel's trace")
    add("--run-natively", action="store_true", help="with --faults: agree that the host runs the program to its end")
    add(
        "--commands",
        metavar="FILE",
        type=values.path,
        help="with --faults: each line of FILE is a command; print a table",
    )
    engine = "auto, unicorn or kvm (default: kvm, where it can be used)"
    add("--engine", metavar="CORE", choices=machine_options.ENGINES, help=engine)
    around = "what Loadstone maps around a file fault (default: 64K, as the kernel)"
    add("--fault-around", metavar="SIZE", type=values.fault_around, help=around)
    limit = f"the longest a run may take (default: {DEFAULT_TIMEOUT:g})"
    add("--timeout", metavar="SECONDS", type=values.seconds, help=limit)
    parser.set_defaults(untrusted=False, root="/", bind=[])


def wanted(options: Namespace) -> bool:
    """Whether the command line asks for this mode."""
    return bool(options.faults)


def run(parser: Parser, options: Namespace) -> int:
    """Run the mode; the exit status. `options.words` are PROGRAM and its arguments."""
    if not options.run_natively:
        raise HostError(
            "--faults: the host would run the program to its end, as you, with all that it does",
            "--run-natively says that you agree",
        )
    options.fault_around = options.fault_around or DEFAULT_FAULT_AROUND
    options.timeout = options.timeout or DEFAULT_TIMEOUT
    if options.commands is not None:
        if options.words:
            raise HostError(f"--commands has the programs in its file: {options.words[0]} is one too many")
        return _run_list(options, _commands(options.commands))
    words = program_words(parser, options.words)
    if os.path.isdir(words[0]):
        raise HostError(f"--faults runs one program, and {words[0]} is a directory", "--commands FILE takes many")
    try:
        comparison = _compare(options, words, _progress(""))
    except LinuxError as error:
        return cannot_execute(words[0], error)
    from loadstone.cli.main import output
    from loadstone.report import verify_faults as report

    if options.json:
        _print_json([comparison], [])
    else:
        report.write_detail(comparison, output())
    return 0 if comparison.identical else 1


def _run_list(options: Namespace, commands: Sequence[list[str]]) -> int:
    """Compare one after the other; 1 if one differs or could not be compared."""
    done: list[Comparison] = []
    failures: list[tuple[str, str]] = []
    for number, words in enumerate(commands, 1):
        try:
            done.append(_compare(options, words, _progress(f"{number} of {len(commands)}, {' '.join(words)}: ")))
        except (LinuxError, HostError) as error:
            failures.append((" ".join(words), str(error.args[0] if isinstance(error, HostError) else error)))
    from loadstone.cli.main import output
    from loadstone.report import verify_faults as report

    if options.json:
        _print_json(done, failures)
    else:
        report.write_table(done, failures, output())
    return 1 if failures or not all(one.identical for one in done) else 0


def _print_json(done: Sequence[Comparison], failures: Sequence[tuple[str, str]]) -> None:
    import json

    from loadstone.report import verify_faults as report

    left_out = [{"command": command, "why": why} for command, why in failures]
    document = {"schema": report.SCHEMA, "programs": [report.as_json(one) for one in done], "not_compared": left_out}
    print(json.dumps(document, indent=2))


def _compare(options: Namespace, words: Sequence[str], progress: Callable[[str], None]) -> Comparison:
    from loadstone.verify.faults import Program, compare

    guest = machine_options.environment(options)
    path = machine_options.find(options, words[0], guest)
    strings = tuple(map(os.fsencode, machine_options.strings(guest)))
    argv = tuple(map(os.fsencode, words))
    program = Program(path, argv, strings, machine_options.working_directory(options), options.stack_limit)
    machine = _machine(options)
    try:
        return compare(program, machine, options.timeout, progress)
    finally:
        machine.close()
        progress("")


def _machine(options: Namespace) -> Machine:
    """A machine as the host is, with the host's CPU if that can be had: the C library chooses its code by the CPU."""
    from loadstone.api import Machine

    def made(engine: str) -> Machine:
        return Machine(
            engine=engine, fault_around=options.fault_around, timeout=options.timeout, keep_faults=False,
            stack_limit=options.stack_limit, fill_ahead=0,
        )  # fmt: skip

    if options.engine is not None:
        return made(options.engine)
    machine = made("kvm")
    try:
        _ = machine.core  # made now
    except HostError:
        machine.close()
        return made("unicorn")
    return machine


def _commands(path: str) -> list[list[str]]:
    """The commands of a file, split as a shell does; lines that begin with # are comments."""
    import shlex

    try:
        with open(path, encoding="utf-8") as file:
            return [shlex.split(line) for line in file if line.strip() and not line.startswith("#")]
    except (OSError, ValueError) as error:
        raise HostError(f"--commands {path}: {error}") from error


def _progress(prefix: str) -> Callable[[str], None]:
    """Say on a terminal what is being done, on one line; the empty text takes the line away."""
    if not sys.stderr.isatty():
        return lambda _: None

    def say(text: str) -> None:
        sys.stderr.write(f"\r\x1b[K{prefix + text if text else ''}"[:200])
        sys.stderr.flush()

    return say

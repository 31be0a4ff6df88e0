"""`loadstone run [options] [--] PROGRAM [ARG…]`."""

from __future__ import annotations

import gc
import os
import sys
import time
from argparse import Namespace
from typing import TYPE_CHECKING, Any

from loadstone.cli import machine_options, values
from loadstone.cli.binfmt_option import add_binfmt_option, register_formats
from loadstone.cli.last_words import say_last_words
from loadstone.cli.observers import Observers
from loadstone.cli.parser import Parser, add_program, program_words
from loadstone.cli.programs import cannot_execute
from loadstone.errors import HostError, LinuxError

if TYPE_CHECKING:
    from loadstone.api import Machine, Process
    from loadstone.kernel.process import ExitStatus

TIMED_OUT = 124

_ABOUT = """\
Run a program in a machine of its own. Its input and output are yours, and its
exit status is the command's. Options end at PROGRAM: what follows belongs to
the program.
"""
_EXAMPLES = """\
Examples:
  loadstone run /bin/ls -l /usr/bin
  loadstone run --stats --fault-around 4K python3 -c 'print(1)'
  loadstone run --trace syscall -o calls.txt -- ./prog --its-own-option
  loadstone run --deterministic --record run.jsonl ./prog
  loadstone run --rw ./out --untrusted --timeout 10 ./from-the-internet

Exit status: the program's; 128+N if signal N killed it; 127 not found;
126 cannot be executed; 124 --timeout; 125 Loadstone's own failure.
"""


def parser() -> Parser:
    """The options of `run`."""
    made = Parser("run", "[OPTION]... [--] PROGRAM [ARG]...", _ABOUT, _EXAMPLES)
    add = made.group("What you get to see")
    add("--stats", action="store_true", help="afterwards, on stderr: mappings, page faults, frames, system calls")
    add("--processes", action="store_true", help="afterwards, on stderr: the process tree, and what each took")
    add("--timeline", metavar="FILE.svg", type=values.path, help="draw who ran on which CPU when, who waited for whom")
    add("--trace", metavar="KINDS", type=values.kinds, help="a line for each of: exec,fault,syscall,map,process")
    add("-o", dest="output", metavar="FILE", type=values.path, help="write the trace to FILE instead of stderr")
    add("--record", metavar="FILE.jsonl", type=values.path, help="write every event to FILE.jsonl, one a line")
    machine_options.add_all(made)
    add_binfmt_option(made)
    add = made.group("When it crashes")
    core = "write an ELF core file for gdb: WHERE is a directory (for core.PID) or the file"
    add("--core", metavar="WHERE", type=values.path, help=core)
    add_program(made)
    return made


def main(argv: list[str]) -> int:
    """Run the command; the exit status."""
    made = parser()
    options = made.parse_args(argv)
    if options.output and not options.trace:
        made.error("-o is where --trace writes to; say what to trace, as in --trace syscall -o FILE")
    words = program_words(made, options.words)
    guest = machine_options.environment(options)
    try:
        path = machine_options.find(options, words[0], guest)
    except LinuxError as error:
        return cannot_execute(words[0], error)
    return _run(options, path, words, guest)


def _run(options: Namespace, path: str, words: list[str], guest: dict[str, str]) -> int:
    """Make the machine, start the program in it, and see it to its end; the exit status."""
    arguments = machine_options.machine_arguments(options, path)
    observers = Observers(options)
    from loadstone.api import Machine

    started = time.perf_counter()
    with Machine(**arguments, keep_faults=False) as machine:
        register_formats(machine, options)
        if options.core is not None:
            machine.dump_cores(options.core)
        observers.attach(machine, lambda: _header(options, machine, words, guest))
        try:
            process = machine.spawn(path, words, guest, **machine_options.surroundings(options))
        except LinuxError as error:
            observers.finish()
            return cannot_execute(words[0], error)
        process.keep_memory()  # the last words look at it
        observers.watch(machine, process)
        status = _see_to_its_end(options, machine, process, observers, words)
        if observers.profile is not None and observers.end is not None and sys.stderr is not None:
            from loadstone.report.stats import print_summary, summarize

            seconds = time.perf_counter() - started
            print_summary(summarize(process, observers.end, status, observers.profile, seconds))
        _show_processes(machine, observers, options, words)
        if status.timed_out:
            return TIMED_OUT
        return 128 + status.signal if status.signal else status.code


def _see_to_its_end(
    options: Namespace, machine: Machine, process: Process, observers: Observers, words: list[str]
) -> ExitStatus:
    """Run the program, and say what there is to say of its end."""
    gc.freeze()  # what is there by now stays
    gc.enable()
    try:
        status = process.run()
        ended = machine.finish(wait_for_all=options.wait_all)
        status = machine.switched_off or status
    except HostError:  # as when everybody waits for ever: who waits for what is worth seeing
        _show_processes(machine, observers, options, words)
        raise
    finally:
        observers.finish()
    say_last_words(machine, observers, words[0], status, ended)
    return status


def _show_processes(machine: Machine, observers: Observers, options: Namespace, words: list[str]) -> None:
    """The table of --processes, the picture of --timeline."""
    history = observers.history
    if history is None:
        return
    history.pause()
    if options.processes and sys.stderr is not None:
        from loadstone.report.paper import Paper
        from loadstone.report.processes import print_processes

        sys.stderr.write("\n")
        print_processes(history, Paper(sys.stderr))
    observers.draw_timeline(words, machine.engine)


def _header(options: Namespace, machine: Machine, words: list[str], guest: dict[str, str]) -> dict[str, Any]:
    """The first line of a record: everything the run depended on."""
    from loadstone import __version__

    try:
        terminal: list[int] | None = list(os.get_terminal_size(1))
    except OSError:
        terminal = None
    return {
        "version": __version__,
        "command": words,
        "environment": list(machine_options.strings(guest)),
        "cwd": machine_options.working_directory(options),
        "engine": machine.engine,
        "cpu": machine.core.name,
        "kernel": machine.profile.name,
        "fault_around": options.fault_around,
        "fill_ahead": options.fill_ahead or 0,  # off, unless it was asked for, since the recorder listens to faults
        "page_cache": options.page_cache,
        "deterministic": options.deterministic,
        "seed": machine.seed,
        "aslr": options.aslr,
        "terminal": terminal,
        "cpu_count": machine.profile.cpu_count,
        "memory": machine.memory_size,
    }

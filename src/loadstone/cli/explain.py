"""`loadstone explain PROGRAM [ARG…]`: no instruction of the program is run."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING

from loadstone.cli import machine_options
from loadstone.cli.binfmt_option import add_binfmt_option, register_formats
from loadstone.cli.parser import Parser, add_program, program_words
from loadstone.cli.programs import cannot_execute, status_of
from loadstone.errors import LinuxError

if TYPE_CHECKING:
    from loadstone.observe.image import Image

_ABOUT = """\
Tell the story of execve() for a program: what the kernel decides, by which
numbers, and what the process looks like before its first instruction. Nothing
of the program is run.
"""
_EXAMPLES = """\
Examples:
  loadstone explain /bin/ls -l
  loadstone explain --clear-env --env PATH=/usr/bin ./prog 123
  loadstone explain --json ./prog | jq '.segments[] | .type'

Exit status: 0; 1 when the kernel would refuse the program, with the errno and
the rule; 127 when there is no such command to look at; 125 Loadstone's own
failure.
"""


def parser() -> Parser:
    """The options of `explain`."""
    made = Parser("explain", "[OPTION]... [--] PROGRAM [ARG]...", _ABOUT, _EXAMPLES)
    add = made.group("Output")
    add("--json", action="store_true", help="the image as JSON, schema loadstone/image/1")
    add("--why", action="store_true", help="and by which rule and kernel function each thing is where it is")
    machine_options.add_environment_options(made)
    machine_options.add_file_options(made)
    machine_options.add_machine_options(made)
    add_binfmt_option(made)
    made.set_defaults(engine=None)
    add_program(made)
    return made


def main(argv: list[str]) -> int:
    """Run the command; the exit status."""
    made = parser()
    options = made.parse_args(argv)
    words = program_words(made, options.words)
    guest = machine_options.environment(options)
    try:
        path = machine_options.find(options, words[0], guest)
    except LinuxError as error:
        if not options.json:
            return cannot_execute(words[0], error)
        _failed(True, words[0], error)
        return status_of(error)
    try:
        image = _image(options, path, words, guest)
    except LinuxError as error:
        return _failed(options.json, words[0], error)
    if options.json:
        import json

        print(json.dumps(image.to_dict()))
    else:
        from loadstone.cli.main import output
        from loadstone.report.explain import write_story

        write_story(image, output())
        if options.why:
            from loadstone.report.why import write_why

            write_why(image, output())
    return 0


def _image(options: Namespace, path: str, words: list[str], guest: dict[str, str]) -> Image:
    """The image, on a machine as the options say. Raises LinuxError."""
    arguments = machine_options.machine_arguments(options, path)
    from loadstone.api import Machine, explain

    with Machine(**arguments, keep_faults=False) as machine:
        register_formats(machine, options)
        host = machine.profile
        of_a_core = options.engine is not None or options.cpu is not None
        if of_a_core:
            core = machine.core
            machine.profile = host._replace(
                hwcap=core.hwcap, hwcap2=core.hwcap2, minimum_signal_stack=core.minimum_signal_stack
            )
        image = explain(path, words, guest, machine=machine, cwd=machine_options.guest_directory(options))
        if of_a_core:
            from loadstone.linux.exec.auxv import differing

            image.differing = differing(machine.profile, host)
        return image


def _failed(as_json: bool, name: str, error: LinuxError) -> int:
    if as_json:
        import json

        from loadstone.observe.image import failure_to_dict

        print(json.dumps(failure_to_dict(error)))
    else:
        from loadstone.cli.main import output
        from loadstone.report.explain import write_failure

        write_failure(error, name, output())
    return 1

"""`loadstone verify`: the same question to Loadstone and to the kernel of this machine, and both answers compared.

The default compares process images. `--faults` (cli/verify_faults.py) and `--fuzz`, `--conformance`, `--aslr`
(cli/verify_fuzz.py) are modes with options of their own: each of those modules has `add_options(parser)`,
`wanted(options)` and `run(parser, options) -> exit status`.
"""

from __future__ import annotations

import gc

from loadstone.cli import machine_options, values, verify_faults, verify_fuzz, verify_images
from loadstone.cli.parser import Parser, add_program

_ABOUT = """\
Let the kernel of this machine and Loadstone build the same process image, and compare the two:
mappings, break, entry, registers, auxiliary vector, every byte of the initial stack.

This is the one command that lets the host execute the file: it is stopped before its first
instruction, looked at through ptrace, and killed. Nothing of it runs; no file is changed.
Only --faults --run-natively lets it run to its end.
"""
_EXAMPLES = """\
Examples:
  loadstone verify /bin/ls -l                 one program with its arguments
  loadstone verify /usr/bin /usr/sbin         every program and script below two directories
  loadstone verify --each /bin/a* /bin/b*     each of these files
  loadstone verify --stack-limit unlimited /bin/true
  loadstone verify --faults --run-natively ls -l /usr/bin

Exit status: 0 identical; 1 something differs; 127 not found; 125 Loadstone's own failure.
"""


def parser() -> Parser:
    """The options of `verify`."""
    made = Parser("verify", "[OPTION]... [--] PROGRAM [ARG]... | DIRECTORY...", _ABOUT, _EXAMPLES)
    add = made.group("Output")
    add("--json", action="store_true", help="the result as JSON")
    verify_images.add_options(made)
    verify_faults.add_options(made)
    verify_fuzz.add_options(made)
    machine_options.add_environment_options(made)
    add = made.group("The process that executes it")
    limit = "its limit on the stack (ulimit -s): SIZE, small (256K) or unlimited; default: this shell's"
    add("--stack-limit", metavar="SIZE", type=values.stack_limit, help=limit)
    add_program(made)
    return made


def main(argv: list[str]) -> int:
    """Run the command; the exit status."""
    made = parser()
    options = made.parse_args(argv)
    gc.enable()  # address spaces come and go here
    if verify_faults.wanted(options):
        return verify_faults.run(made, options)
    if verify_fuzz.wanted(options):
        return verify_fuzz.run(made, options)
    return verify_images.run(made, options)

"""`loadstone verify`: the same question to Loadstone and to the kernel of this machine, and both answers compared.

The default compares process images. `--faults` (cli/verify_faults.py) and `--fuzz`, `--conformance`, `--aslr`
(cli/verify_fuzz.py) are modes with options of their own: each of those modules has `add_options(parser)`,
`wanted(options)` and `run(parser, options) -> exit status`.
"""

from __future__ import annotations

import gc
from argparse import Namespace

from loadstone.cli import machine_options, values, verify_faults, verify_fuzz, verify_images
from loadstone.cli.parser import Parser, add_program

_ABOUT = """\
Let the kernel of this machine and Loadstone build the same process image, and
compare the two: mappings, break, entry, registers, auxiliary vector, every byte
of the initial stack.

This is the one command that lets the host execute the file: it is stopped
before its first instruction, looked at through ptrace, and killed. Nothing of
it runs; no file is changed. Only --faults --run-natively lets it run to its
end.
"""
_EXAMPLES = """\
Examples:
  loadstone verify /bin/ls -l                 one program with its arguments
  loadstone verify /usr/bin /usr/sbin         all programs and scripts below
  loadstone verify --each /bin/a* /bin/b*     each of these files
  loadstone verify --stack-limit unlimited /bin/true
  loadstone verify --faults --run-natively ls -l /usr/bin

Exit status: 0 identical; 1 something differs; 127 not found; 125 Loadstone's
own failure.
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


IMAGES = "images"
_MODES = ("--faults", "--fuzz", "--conformance", "--aslr")
# Options that only some modes look at; without a mode, images are compared.
_BELONGS = {
    "--hostile": (IMAGES,),
    "--kernel": (IMAGES,),
    "--each": (IMAGES,),
    "--jobs": (IMAGES, "--fuzz"),
    "--report": (IMAGES, "--fuzz", "--conformance", "--aslr"),
    "--run-natively": ("--faults",),
    "--commands": ("--faults",),
    "--engine": ("--faults",),
    "--fault-around": ("--faults",),
    "--timeout": ("--faults",),
    "--seed": ("--fuzz", "--aslr"),
    "--env": (IMAGES, "--faults"),
    "--clear-env": (IMAGES, "--faults"),
    "--cwd": (IMAGES, "--faults"),
    "--stack-limit": (IMAGES, "--faults"),
}


def _check(made: Parser, options: Namespace) -> None:
    """One mode at most, and no option that it does not look at."""

    def given(option: str) -> bool:
        name = option.removeprefix("--").replace("-", "_")
        return bool(getattr(options, name) != made.get_default(name))

    modes = [option for option in _MODES if given(option)]
    if len(modes) > 1:
        made.error(f"{', '.join(modes)}: one at a time")
    mode = modes[0] if modes else IMAGES
    for option, where in _BELONGS.items():
        if not given(option) or mode in where:
            continue
        needs = " or ".join(one for one in where if one != IMAGES)
        if mode == IMAGES:
            made.error(f"{option} means something with {needs} only")
        made.error(f"{option} means nothing with {mode}")


def main(argv: list[str]) -> int:
    """Run the command; the exit status."""
    made = parser()
    options = made.parse_args(argv)
    _check(made, options)
    gc.enable()  # address spaces come and go here
    if verify_faults.wanted(options):
        return verify_faults.run(made, options)
    if verify_fuzz.wanted(options):
        return verify_fuzz.run(made, options)
    return verify_images.run(made, options)

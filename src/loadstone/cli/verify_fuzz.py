"""`loadstone verify --fuzz N`, `--conformance`, `--aslr N`: the verdict on bad files, and random addresses."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from loadstone.cli import values
from loadstone.cli.parser import Parser
from loadstone.errors import HostError

if TYPE_CHECKING:
    from typing import TextIO

DIFFERENT = 1


def add_options(parser: Parser) -> None:
    """The options of these modes."""
    add = parser.group("Compare verdicts")
    add("--fuzz", metavar="N", type=values.positive, help="give N mutated files to both, and compare their verdicts")
    add("--seed", metavar="S", type=values.integer, help="of the mutations, or of --aslr (default: 0)")
    add("--conformance", action="store_true", help="give a list of bad and odd files to both, and compare")
    add("--aslr", metavar="N", type=values.positive, help="compare where N randomised execs put things on both sides")


def wanted(options: Namespace) -> bool:
    """Whether the command line asks for one of these modes."""
    return bool(options.fuzz or options.conformance or options.aslr)


def run(parser: Parser, options: Namespace) -> int:
    """Run the mode; the exit status. `options.words` is what is left of the command line."""
    from loadstone.verify.runner import require_host

    require_host()
    mode = next(option for option in _MODES if getattr(options, option.removeprefix("--")))
    if options.words:
        raise HostError(f"{mode} makes its files itself and takes no program: {options.words[0]} is one too many")
    return _MODES[mode](options)


def _fuzz(options: Namespace) -> int:
    from loadstone.report.verify_fuzz import findings_to_dict, write_findings
    from loadstone.verify.conditions import conditions
    from loadstone.verify.fuzz import fuzz

    with _progress("mutants", options.fuzz) as progress:
        findings = fuzz(options.fuzz, options.seed or 0, workers=options.jobs, progress=progress)
    here = conditions()
    _show(options, findings_to_dict(findings, here), lambda stream: write_findings(findings, here, stream))
    return DIFFERENT if findings.wrong else 0


def _conformance(options: Namespace) -> int:
    from loadstone.report.verify_fuzz import checked_to_dict, write_checked
    from loadstone.verify.conditions import conditions
    from loadstone.verify.conformance import check_all, conformance_cases

    cases = conformance_cases()
    with _progress("files", len(cases)) as progress:
        checked = check_all(cases, progress)
    here = conditions()
    _show(options, checked_to_dict(checked, here), lambda stream: write_checked(checked, here, stream))
    return 0 if all(one.good for one in checked) else DIFFERENT


def _aslr(options: Namespace) -> int:
    from loadstone.report.verify_fuzz import randomisation_to_dict, write_randomisation
    from loadstone.verify.aslr import measure, program_names

    with _progress("programs", len(program_names())) as progress:
        results = measure(options.aslr, options.seed or 0, progress=progress)
    as_dict = randomisation_to_dict(results, options.aslr)
    _show(options, as_dict, lambda stream: write_randomisation(results, options.aslr, stream))
    return DIFFERENT if any(result.faults for result in results) else 0


_MODES = {"--fuzz": _fuzz, "--conformance": _conformance, "--aslr": _aslr}


def _show(options: Namespace, as_dict: dict[str, Any], write: Callable[[TextIO], object]) -> None:
    """Print the report, as asked for; and the JSON to `--report FILE`."""
    from loadstone.cli.main import output

    if options.report is not None:
        try:
            with open(options.report, "w", encoding="ascii") as stream:
                json.dump(as_dict, stream, indent=1)
        except OSError as error:
            raise HostError(f"--report {options.report}: {error.strerror}") from error
    if options.json:
        print(json.dumps(as_dict), file=output())
    else:
        write(output())


@contextmanager
def _progress(what: str, total: int) -> Iterator[Callable[[int], object]]:
    """A function to tell how many are done: a bar on stderr while somebody watches there."""
    if sys.stderr is None or not sys.stderr.isatty():
        yield lambda done: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.update(task, completed=done)

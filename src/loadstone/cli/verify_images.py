"""`loadstone verify PROGRAM [ARG]…` and `loadstone verify DIRECTORY…`: process images, ours beside the kernel's."""

from __future__ import annotations

import json
import os
import sys
import time
from argparse import Namespace
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from loadstone.cli import machine_options, values
from loadstone.cli.parser import Parser, program_words
from loadstone.cli.programs import cannot_execute
from loadstone.errors import HostError, LinuxError

if TYPE_CHECKING:
    from loadstone.linux.profile import KernelProfile
    from loadstone.verify.runner import Request, Result
    from loadstone.verify.summary import Summary

DIFFERENT = 1


def add_options(parser: Parser) -> None:
    """The options of this mode."""
    add = parser.group("Compare images")
    hostile = "also with arguments that strain every rule: none at all, 1 MiB, every alignment, not UTF-8"
    add("--hostile", action="store_true", help=hostile)
    machine_options.add_kernel_option(add)
    add("--jobs", metavar="N", type=values.jobs, help="compare in N processes (default: one a CPU)")
    add("--each", action="store_true", help="take every word for a program or directory, none for an argument")
    add(
        "--report",
        metavar="FILE",
        type=values.path,
        help="write the result to FILE as JSON too, schema loadstone/verify/1",
    )


def run(parser: Parser, options: Namespace) -> int:
    """Run the mode; the exit status."""
    words = program_words(parser, options.words)
    from loadstone.verify.runner import require_host
    from loadstone.verify.variants import hostile

    require_host()
    try:
        requests = _requests(options, words)
    except LinuxError as error:
        return cannot_execute(words[0], error)
    if options.hostile:
        requests = [variant for request in requests for variant in hostile(request)]
    profile = machine_options.kernel_profile(options)
    if len(requests) == 1 and not options.json:
        return _one(requests[0], profile, options)
    return _many(requests, profile, options)


def _requests(options: Namespace, words: list[str]) -> list[Request]:
    """One program with its arguments; or, when the first word is a directory or with --each, all in all of them."""
    from loadstone.verify.runner import Request, strings
    from loadstone.verify.sweep import find_programs

    guest = machine_options.environment(options)
    envp = strings(machine_options.strings(guest))
    rest = (envp, machine_options.guest_directory(options))
    if not options.each and not os.path.isdir(words[0]):
        path = machine_options.find(options, words[0], guest)
        return [Request(path, strings(words), *rest)]
    found = find_programs(words)
    if not found:
        raise HostError(f"{' '.join(words)}: no executable ELF file or script")
    return [Request(path, strings([path]), *rest) for path in found]


def _one(request: Request, profile: KernelProfile | None, options: Namespace) -> int:
    from loadstone.cli.main import output
    from loadstone.report.verify import write_one
    from loadstone.verify.runner import Verifier

    start = time.perf_counter()
    with Verifier(profile, stack_limit=options.stack_limit, keep_images=True) as verifier:
        result = verifier.verify(request)
        _report([result], verifier.profile, time.perf_counter() - start, options.report)
    _write_profile(profile)
    write_one(result, kernel_name(), output())
    return DIFFERENT if result.differences else 0


def _many(requests: Sequence[Request], profile: KernelProfile | None, options: Namespace) -> int:
    from loadstone.cli.main import output
    from loadstone.linux.profile import live_profile
    from loadstone.report.verify import write_many
    from loadstone.verify.sweep import Settings, sweep

    start = time.perf_counter()
    jobs = options.jobs or len(os.sched_getaffinity(0))
    coming = sweep(requests, Settings(profile, options.stack_limit), jobs)
    order = {request: number for number, request in enumerate(requests)}
    results = sorted(_with_progress(coming, len(requests)), key=lambda result: order[result.request])
    seconds = time.perf_counter() - start
    summary, report = _report(results, profile or live_profile(), seconds, options.report)
    if options.json:
        print(json.dumps(report), file=output())
    else:
        _write_profile(profile)
        write_many(results, summary, kernel_name(), output())
    return DIFFERENT if any(result.differences for result in results) else 0


def _report(
    results: Sequence[Result], profile: KernelProfile, seconds: float, file: str | None
) -> tuple[Summary, dict[str, Any]]:
    """The figures and the JSON report, which goes to `file` if there is one."""
    from loadstone.verify.summary import summarise, to_dict
    from loadstone.verify.sweep import distinct_files

    summary = summarise(results, distinct_files([result.request.path for result in results]), seconds)
    report = to_dict(results, summary, profile)
    if file is not None:
        try:
            with open(file, "w", encoding="ascii") as stream:
                json.dump(report, stream, indent=1)
        except OSError as error:
            raise HostError(f"--report {file}: {error.strerror}") from error
    return summary, report


def _with_progress(results: Iterator[Result], total: int) -> Iterator[Result]:
    """The results, with a bar on stderr while somebody watches there."""
    if sys.stderr is None or not sys.stderr.isatty():
        yield from results
        return
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    yield from track(results, "comparing with the kernel", total=total, console=console, transient=True)


def _write_profile(profile: KernelProfile | None) -> None:
    """For another kernel than the one underneath: what the two do differently, and why the images cannot agree."""
    if profile is not None:
        from loadstone.cli.main import output
        from loadstone.linux.profile import live_profile
        from loadstone.linux.profile_fields import profile_differences
        from loadstone.report.verify import write_profile_differences

        live = live_profile()
        write_profile_differences(profile.name, live.name, profile_differences(profile, live), output())


def kernel_name() -> str:
    """The kernel underneath, for a person: `Linux 6.18.5 x86_64`."""
    uname = os.uname()
    return f"{uname.sysname} {uname.release} {uname.machine}"

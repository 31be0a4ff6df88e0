"""The options that describe the machine and what the program is given, shared by the commands that build one."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from loadstone.cli import values
from loadstone.cli.parser import Parser
from loadstone.cli.programs import HostView, find_program, search_path
from loadstone.errors import HostError

if TYPE_CHECKING:
    from loadstone.linux.profile import KernelProfile

ENGINES = ("auto", "unicorn", "kvm")
KERNELS = ("live", "6.12", "6.6", "6.1", "5.10", "4.19", "2.6.32-i386")  # linux.profiles.kernel_names()
CPUS = ("baseline",)
POLICIES = ("round-robin", "fair", "priority")
# What the options of `add_running_options` are when nobody says, also for commands that do not have them.
NOT_RUNNING = {
    "timeout": None,
    "deterministic": False,
    "fault_around": 65536,
    "fill_ahead": None,
    "page_cache": "warm",
    "policy": None,
    "schedule_seed": None,
    "max_processes": 4096,
    "max_files": 1 << 18,
    "wait_all": False,
}


def add_environment_options(parser: Parser) -> None:
    """What the program is given."""
    add = parser.group("What the program is given")
    add(
        "--env",
        metavar="K=V",
        type=values.variable,
        action="append",
        default=[],
        help="set a variable; may be repeated",
    )
    add("--clear-env", action="store_true", help="start from an empty environment")
    add("--cwd", metavar="DIR", type=values.path, help="the directory it starts in (default: this one)")


def add_file_options(parser: Parser) -> None:
    """What the program can see and change."""
    add = parser.group("Which files it sees (default: the host's, read-only; writes are discarded)")
    several: dict[str, Any] = {"type": values.path, "action": "append", "default": []}
    add("--rw", metavar="PATH", help="let it change PATH and all below; may be repeated", **several)
    add("--root", metavar="DIR", type=values.path, default="/", help="make DIR its root directory")
    add("--bind", metavar="SRC:DST", type=values.bind, action="append", default=[], help="show SRC of the host at DST")
    add("--noexec", metavar="DIR", help="let nothing be executed from the guest's DIR", **several)
    add(
        "--untrusted",
        action="store_true",
        help="show only the program, its interpreter and libraries; empty environment",
    )
    parser.set_defaults(binfmt=[])  # what --untrusted shows are their interpreters, too; not all commands have --binfmt


def add_machine_options(parser: Parser) -> None:
    """The machine as far as it decides what a program's image is."""
    add = parser.group("The machine")
    add("--engine", metavar="CORE", choices=ENGINES, default="auto", help="the CPU core: auto, unicorn or kvm")
    add("--cpu", metavar="CPU", choices=CPUS, help="baseline: the program sees the same CPU on every host")
    add("--memory", metavar="SIZE", type=values.memory, help="physical memory: 64M, 2G (default: as the host has)")
    add("--seed", metavar="N", type=values.integer, help="the seed of what is random")
    add("--aslr", metavar="SEED", type=values.integer, help="randomise addresses as the kernel does (default: off)")
    add_kernel_option(add)
    parser.set_defaults(**NOT_RUNNING)


def add_kernel_option(add: Callable[..., Any]) -> None:
    """Which kernel is modelled, in a group of options."""
    add("--kernel", metavar="NAME", choices=KERNELS, help=f"the kernel to model: {', '.join(KERNELS)}")


def add_running_options(parser: Parser) -> None:
    """How the machine runs."""
    add = parser.group("How it runs")
    around = "pages mapped around a file fault: 64K as Linux does, 4K for pure demand paging"
    ahead = "pages of new memory that one fault may fill: auto (512 unless faults are watched), off, or 2 to 512"
    cache = "warm: files are in memory already; cold: their first reads are major faults"
    add("--timeout", metavar="SECONDS", type=values.seconds, help="end the run then, with status 124")
    add("--deterministic", action="store_true", help="the same run every time: clock, randomness, PIDs, time slices")
    add("--policy", metavar="NAME", choices=POLICIES, help="who runs next: round-robin (default), fair, priority")
    add("--schedule-seed", metavar="N", type=values.integer, help="any order and length of time slices, as N decides")
    add("--max-processes", metavar="N", type=values.positive, help="more at a time end the run (default: 4096)")
    add("--max-files", metavar="N", type=values.positive, help="descriptors of all processes (default: 262144)")
    add("--wait-all", action="store_true", help="wait for what the program leaves running in the background, too")
    add("--fault-around", metavar="SIZE", type=values.fault_around, help=around)
    add("--fill-ahead", metavar="PAGES", type=values.fill_ahead, help=ahead)
    add("--page-cache", metavar="STATE", choices=("warm", "cold"), help=cache)
    parser.set_defaults(**NOT_RUNNING)


def add_all(parser: Parser) -> None:
    """All four groups."""
    add_environment_options(parser)
    add_file_options(parser)
    add_machine_options(parser)
    add_running_options(parser)


def machine_arguments(options: Namespace, path: str) -> dict[str, Any]:
    """The keyword arguments of `Machine` for parsed options; `path` is the program's, as the guest names it.

    Raises HostError for what this version or this host cannot do.
    """
    handed = [("--rw", given) for given in options.rw] + [("--bind", source) for source, _ in options.bind]
    for option, given in handed:
        if not os.path.exists(given):
            raise HostError(f"{option} {given}: there is no such file or directory to hand to the program")
    if options.policy is not None and options.schedule_seed is not None:
        raise HostError("--policy and --schedule-seed: either a policy or the dice decide who runs next, not both")
    visible = None
    if options.untrusted:
        from loadstone.cli.binfmt_option import interpreters
        from loadstone.observe.needed import needed_files

        starts = [os.path.join(working_directory(options), path), *interpreters(options)]
        visible = [file for start in starts for file in needed_files(start, options.root, dict(options.env))]
    return {
        "visible": visible,
        "memory": options.memory,
        "engine": options.engine or "auto",
        "cpu": options.cpu,
        "deterministic": options.deterministic,
        "seed": options.seed,
        "aslr": options.aslr,
        "fault_around": options.fault_around,
        "fill_ahead": options.fill_ahead,
        "page_cache": options.page_cache,
        "root": os.path.realpath(options.root),
        "rw": [_absolute("--rw", path) for path in options.rw],
        "binds": [(_absolute("--bind", source), target) for source, target in options.bind],
        "noexec": [_absolute("--noexec", path) for path in options.noexec],
        "timeout": options.timeout,
        "profile": kernel_profile(options),
        "policy": options.policy or POLICIES[0],
        "schedule_seed": options.schedule_seed,
        "max_processes": options.max_processes,
        "max_files": options.max_files,
    }


def _absolute(option: str, path: str) -> str:
    """`path` from the root on. Raises HostError where it begins in a working directory that was removed."""
    try:
        return os.path.abspath(path)
    except FileNotFoundError as error:
        raise HostError(f"{option} {path}: the working directory has been removed") from error


def kernel_profile(options: Namespace) -> KernelProfile | None:
    """The kernel to model; None for the one we are running on."""
    if options.kernel in (None, KERNELS[0]):
        return None
    from loadstone.linux import profiles

    return profiles.kernel_profile(options.kernel)


def environment(options: Namespace) -> dict[str, str]:
    """The program's environment."""
    bare = options.clear_env or options.untrusted
    return {**({} if bare else _own_environment()), **dict(options.env)}


def _own_environment() -> dict[str, str]:
    """What Loadstone was given, without the LC_CTYPE that Python adds by itself in the C locale (PEP 538)."""
    own = dict(os.environ)
    if "LC_CTYPE" in own:
        try:
            with open("/proc/self/environ", "rb") as file:
                given = file.read().split(b"\0")
        except OSError:
            return own
        if not any(entry.startswith(b"LC_CTYPE=") for entry in given):
            del own["LC_CTYPE"]
    return own


def working_directory(options: Namespace) -> str:
    """Where the program starts, as the guest names it."""
    if options.cwd is not None:
        return os.path.join("/", options.cwd) if options.root != "/" else os.path.abspath(options.cwd)
    if options.root != "/":
        return "/"
    try:
        return os.getcwd()
    except OSError:  # it has been removed
        return "/"


def guest_directory(options: Namespace) -> str | None:
    """What to hand to `Machine.spawn`: None leaves it to the machine when nothing was asked for."""
    return None if options.cwd is None and options.root == "/" else working_directory(options)


def surroundings(options: Namespace) -> dict[str, Any]:
    """The further arguments of `Machine.spawn`: where the program starts, and with which descriptors above stderr.

    One that is not trusted gets none: whoever left them open may not have meant them for it.
    """
    from loadstone.host import inheritable_descriptors

    return {
        "cwd": guest_directory(options),
        "inherited": () if options.untrusted else inheritable_descriptors(),
    }


def find(options: Namespace, name: str, guest: dict[str, str]) -> str:
    """The path to execute for the word `name`. Raises LinuxError, and HostError for a root that is no directory."""
    if not os.path.isdir(options.root):
        raise HostError(f"--root: {options.root} is not a directory")
    root = os.path.realpath(options.root)
    view = HostView(root, options.bind, working_directory(options))
    return find_program(name, search_path(guest, os.environ), view)


def strings(guest: dict[str, str]) -> Sequence[str]:
    """The environment as execve takes it."""
    return [f"{name}={value}" for name, value in guest.items()]

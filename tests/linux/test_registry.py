"""The registry: which handler a number leads to, how registers become arguments, and what is documented."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from loadstone.linux import abi, strace
from loadstone.linux.refusals import MOST, OTHERS, count_refusal
from loadstone.linux.syscalls import areas, arguments, document
from loadstone.linux.syscalls.registry import FULL, NOTHING, PARTIAL, Registry, handlers
from support.speed import cost
from support.twins import ARENA, Guest

DOCUMENT = Path(__file__).parents[2] / "docs" / "syscalls.md"
REGISTRY = Registry(abi.load())


def test_every_module_defines_exactly_the_calls_that_lead_to_it() -> None:
    wanted: dict[str, set[str]] = {}
    for name, area in areas.AREAS.items():
        wanted.setdefault(area, set()).add(name)
    assert {area: set(handlers(area)) for area in wanted} == wanted


def test_every_call_of_an_area_is_in_the_table_of_names() -> None:
    assert set(areas.AREAS) <= set(abi.load().numbers)


@pytest.mark.parametrize("row", [row for row in REGISTRY.all() if row.function], ids=lambda row: row.name)
def test_a_handler_is_well_formed(row: object) -> None:
    assert row.support in (FULL, PARTIAL, NOTHING)  # type: ignore[attr-defined]
    assert row.note or row.support == FULL  # type: ignore[attr-defined]
    function = row.function  # type: ignore[attr-defined]
    annotations = dict(function.__annotations__)
    annotations.pop("return")
    assert next(iter(annotations)) == "task"
    assert len(annotations) <= 7
    unknown = [text for text in list(annotations.values())[1:] if text not in arguments.KINDS]
    assert not unknown


def test_every_kind_of_argument_can_be_shown() -> None:
    assert {show for _, show, _ in arguments.KINDS.values()} <= set(strace.FORMATTERS)


def test_the_kinds_are_the_names_that_a_type_checker_sees() -> None:
    text = Path(arguments.__file__).read_text()
    aliases = [line.split(":")[0].strip() for line in text.splitlines() if line.strip().endswith(": TypeAlias = int")]
    assert aliases == list(arguments.KINDS)


@pytest.mark.parametrize(
    ("width", "register", "value"),
    [
        (arguments.INT, 0xFFFF_FFFF, -1),
        (arguments.INT, 0xABCD_0000_0000_0005, 5),
        (arguments.INT, 0xFFFF_FFFF_8000_0000, -(1 << 31)),
        (arguments.UNSIGNED_INT, 0xABCD_FFFF_FFFF, 0xFFFF_FFFF),
        (arguments.UNSIGNED_SHORT, 0x1_81FF, 0x81FF),
        (arguments.LONG, (1 << 64) - 5, -5),
        (arguments.LONG, 1 << 63, -(1 << 63)),
        (arguments.UNSIGNED_LONG, (1 << 64) - 5, (1 << 64) - 5),
    ],
)
def test_a_register_is_cut_to_the_argument_type(width: int, register: int, value: int) -> None:
    caller = eval(arguments.decoder_source((width,)), {})
    assert caller(lambda task, argument: argument)(None, (0, register)) == value
    assert strace._cut(register, width) == value


def test_the_upper_half_of_the_number_does_not_count() -> None:
    guest = Guest()
    guest.context.prepare(0xFFFF_0000_0000_0000 | guest.numbers["getpid"], ())
    guest.calls.dispatch(guest.task)
    assert guest.result == guest.process.pid


def test_calls_and_missing_calls_are_counted() -> None:
    guest = Guest()
    for _ in range(3):
        guest.call("getpid")
    assert guest.call("fanotify_init") == -errno.ENOSYS
    assert guest.call("io_uring_setup") == -errno.ENOSYS
    assert guest.calls.counts() == {"getpid": 3, "io_uring_setup": 1, "fanotify_init": 1}
    assert guest.calls.total == 5
    assert guest.calls.unimplemented == {"io_uring_setup": 1, "fanotify_init": 1}


def test_a_listener_gets_every_call_with_its_text() -> None:
    guest, seen = Guest(), []
    guest.events.subscribe(seen.append, ["syscall"])
    guest.call("mprotect", ARENA, 4096, 1)
    guest.call("mprotect", 0x7000_0000, 4096, 1)
    assert [(e.name, e.result, e.errno, e.text) for e in seen] == [
        ("mprotect", 0, None, "mprotect(0x10000000, 4096, PROT_READ)"),
        ("mprotect", -errno.ENOMEM, "ENOMEM", "mprotect(0x70000000, 4096, PROT_READ)"),
    ]
    assert seen[0].args[:3] == (ARENA, 4096, 1)
    assert (seen[0].pid, seen[0].tid, seen[0].number) == (guest.process.pid, guest.task.tid, 10)


def test_the_page_in_the_docs_is_current() -> None:
    assert DOCUMENT.read_text() == document.markdown(), "run: python -m loadstone.linux.syscalls > docs/syscalls.md"


def test_the_command_prints_the_page() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "loadstone.linux.syscalls"], capture_output=True, text=True, check=True
    )
    assert done.stdout == document.markdown()


def test_dispatching_costs_little_beside_the_handler() -> None:
    guest = Guest()
    guest.context.prepare(guest.numbers["getpid"], ())
    context, task, dispatch = guest.context, guest.task, guest.calls.dispatch
    registers = context.system_call()
    context.system_call = lambda: registers  # type: ignore[method-assign]
    context.set_result = lambda value: None  # type: ignore[method-assign]

    def many() -> None:
        for _ in range(1000):
            dispatch(task)

    assert cost(many) < 12  # about 1.5 us each where the unit takes 0.12 ms, and five times what it is


def test_what_was_asked_for_in_vain_is_counted_within_bounds() -> None:
    """A program may try every number there is, and an ioctl may have any."""
    guest = Guest()
    for number in range(10_000, 20_000):
        guest.context.prepare(number, ())
        guest.calls.dispatch(guest.task)
        count_refusal(guest.task, f"ioctl {number:#x}")
    assert sum(guest.calls.unimplemented.values()) == sum(guest.calls.refused.values()) == 10_000
    assert len(guest.calls.unimplemented) == len(guest.calls.refused) == MOST + 1
    assert guest.calls.refused[OTHERS] == 10_000 - MOST
    assert len(guest.calls.registry.used()) < 3 * MOST

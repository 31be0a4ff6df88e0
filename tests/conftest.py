"""Fixtures of all tests, and the closing lines: what ran, on which engine, and what was skipped for which reason."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from support import run
from support.compilers import Compiler

_ENGINE = "guest runs on engine "


def pytest_configure() -> None:
    """A shell's `&` or nohup would have every program below ignore signals that tests send."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Compiler:
    """`compiled(source, variant, *options)`: the path of a C program built for this session."""
    base = tmp_path_factory.getbasetemp()
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "compiled"
    shared.mkdir(exist_ok=True)
    return Compiler(shared)


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Path]:
    """An empty directory to run a program in."""
    directory = tmp_path / "here"
    directory.mkdir()
    yield directory


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    """Note in the test's report how many guest programs it ran, by engine: reports cross from worker to controller."""
    run.runs_by_engine.clear()
    try:
        yield
    finally:
        item.user_properties.extend((_ENGINE + name, count) for name, count in sorted(run.runs_by_engine.items()))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what ran and what did not: a green run in which nothing ran must not look like a green run."""
    engines: Counter[str] = Counter()
    for outcome in ("passed", "failed"):
        for report in terminalreporter.stats.get(outcome, []):
            for name, count in getattr(report, "user_properties", []):
                if str(name).startswith(_ENGINE):
                    engines[str(name)[len(_ENGINE) :]] += int(str(count))
    reasons: Counter[str] = Counter()
    for report in terminalreporter.stats.get("skipped", []):
        where = report.longrepr
        reasons[str(where[2] if isinstance(where, tuple) else where)] += 1
    terminalreporter.section("what ran")
    ran = ", ".join(f"{count} on engine {name}" for name, count in sorted(engines.items())) or "none"
    terminalreporter.line(f"guest programs run: {ran}")
    terminalreporter.line(f"skipped tests: {sum(reasons.values())}")
    for reason, count in sorted(reasons.items()):
        terminalreporter.line(f"  {count} times: {reason.removeprefix('Skipped: ')}")

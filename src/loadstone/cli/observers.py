"""What watches a run: the trace, the record, the profile behind `--stats`, and what is known of a death.

Modules are imported for what was asked for only: a plain run loads none of them.
"""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from loadstone.errors import HostError

if TYPE_CHECKING:
    from typing import TextIO

    from loadstone.events import Signal
    from loadstone.observe.at_exit import AtExit
    from loadstone.observe.death import DeathWatch
    from loadstone.observe.fault_profile import FaultProfile
    from loadstone.observe.processes import History
    from loadstone.observe.recorder import Recorder

_OUTPUT_BUFFER = 1 << 16


class Observers:
    """Built before the machine, so that a file that cannot be written is known before anything runs."""

    def __init__(self, options: Namespace) -> None:
        self.profile: FaultProfile | None = None
        self.death: DeathWatch | None = None
        self.end: AtExit | None = None
        self._recorder: Recorder | None = None
        self._trace_kinds: tuple[str, ...] = options.trace or ()
        self._trace_file = _create(options.output, "-o") if options.output else None
        self._record_file = _create(options.record, "--record") if options.record else None
        self._wants_profile = options.stats
        self.history: History | None = None
        self._timeline_file = _create(options.timeline, "--timeline") if options.timeline else None
        self._wants_processes = options.processes

    def attach(self, machine: Any, header: Callable[[], dict[str, Any]]) -> None:
        """Subscribe to the machine's events. `header` gives the first line of the record."""
        events = machine.events
        for file in (self._trace_file, self._record_file, self._timeline_file):
            if file is not None:
                machine.kernel.vfs.hide(file.fileno())
        if self._trace_kinds:
            from loadstone.observe.trace import Tracer, event_kinds

            write = self._trace_file.write if self._trace_file else _to_stderr
            events.subscribe(Tracer(write), event_kinds(self._trace_kinds))
        if self._record_file:
            from loadstone.observe.recorder import Recorder

            self._recorder = Recorder(self._record_file.write, header())
            events.subscribe(self._recorder, texts=False)
        if self._wants_profile:
            from loadstone.observe.fault_profile import FaultProfile

            self.profile = FaultProfile()
            events.subscribe(self.profile, FaultProfile.KINDS, texts=False)
        if self._wants_processes or self._timeline_file:
            from loadstone.observe.processes import History

            self.history = History(details=self._timeline_file is not None)
            events.subscribe(self.history, History.KINDS, texts=False)

    def watch(self, machine: Any, process: Any) -> None:
        """Know why `process` dies, should it die, and how its memory looked at the end."""

        def signal(record: Signal) -> None:
            if record.action != "default":  # nobody dies of it
                return
            if self.death is None:
                from loadstone.observe.death import DeathWatch

                self.death = DeathWatch(process)
            self.death(record)

        machine.events.subscribe(signal, ("signal",))
        if self.profile is not None:
            from loadstone.observe.at_exit import AtExit

            self.end = AtExit(process)
            machine.events.subscribe(self.end, AtExit.KINDS)

    def draw_timeline(self, words: list[str], engine: str) -> None:
        """Write the picture of --timeline, if there is to be one. Raises HostError when the disk does not take it."""
        if self._timeline_file is None or self.history is None:
            return
        from loadstone.report.timeline import draw

        try:
            with self._timeline_file as file:
                file.write(draw(self.history, words, engine))
        except OSError as error:
            raise HostError(f"--timeline: the picture could not be written: {error.strerror}") from error

    def finish(self) -> None:
        """Write out what is pending. Raises HostError when the disk does not take it."""
        try:
            if self._recorder:
                self._recorder.close()
            for file in (self._trace_file, self._record_file):
                if file:
                    file.close()
        except OSError as error:
            raise HostError(f"the trace or record could not be written: {error.strerror}") from error


def _create(path: str, option: str) -> TextIO:
    try:
        return open(path, "w", _OUTPUT_BUFFER, encoding="utf-8", errors="surrogateescape")
    except OSError as error:
        raise HostError(f"{option}: {path} cannot be written: {error.strerror}") from error


def _to_stderr(text: str) -> None:
    """At once, so that lines stand between the program's own in the right order."""
    with suppress(OSError):  # whoever read it may be gone; the program goes on
        os.write(2, text.encode("utf-8", "backslashreplace"))

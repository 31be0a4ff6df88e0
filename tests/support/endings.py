"""Ending a machine from outside, by the third of three signals within two seconds."""

from __future__ import annotations

import time
from collections.abc import Callable

PATIENCE = 100.0  # seconds, for an end that takes far less than one
PAUSE = 0.2  # seconds between two signals


def end_by_three(send: Callable[[], object], ended: Callable[[], bool]) -> None:
    """Send a signal three times, and again where that was not the end.

    Of two signals that come while a process is held up it sees one. A fourth one is not sent to one that is ending.
    """
    deadline = time.monotonic() + PATIENCE
    while not ended():
        assert time.monotonic() < deadline, "still running"
        for _ in range(3):
            send()
            time.sleep(PAUSE)
        for _ in range(50):
            if ended():
                return
            time.sleep(PAUSE)

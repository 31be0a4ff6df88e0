"""What something costs in units of the machine's own speed, which differs from host to host and by the load."""

from __future__ import annotations

import time
from collections.abc import Callable

ROUNDS = 30


def unit() -> int:
    """A fixed piece of work: about 0.1 ms of a fast CPU."""
    total = 0
    for number in range(2000):
        total = (total * 7 + number) % 251
    return total


def cost(action: Callable[[], object], rounds: int = ROUNDS) -> float:
    """CPU time of `action`, as a multiple of that of `unit`: the least of each, taken in turns."""
    times: dict[Callable[[], object], list[float]] = {action: [], unit: []}
    for _ in range(rounds):
        for one, spent in times.items():
            start = time.thread_time()
            one()
            spent.append(time.thread_time() - start)
    return min(times[action]) / min(times[unit])

"""Run a program in a machine in this process; print the seconds that `process.run()` took, without start-up."""

from __future__ import annotations

import os
import sys
import time


def main() -> None:
    from loadstone import Machine

    saved = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the guest's output is not ours
    with Machine(engine="unicorn", memory=2 << 30, keep_faults=False) as machine:  # as `loadstone run` does
        process = machine.spawn(sys.argv[1], sys.argv[1:], {})
        start = time.perf_counter()
        process.run()
        spent = time.perf_counter() - start
    os.dup2(saved, 1)
    print(spent)


main()

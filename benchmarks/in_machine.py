"""Run a program in a machine in this process; print the CPU seconds that `process.run()` took, without start-up."""

from __future__ import annotations

import os
import sys
import time


def main() -> None:
    from loadstone import Machine

    saved = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the guest's output is not ours
    # As `loadstone run` does, but that each page faults by itself: a fault is what is measured.
    with Machine(engine="unicorn", memory=2 << 30, fill_ahead=0, keep_faults=False) as machine:
        process = machine.spawn(sys.argv[1], sys.argv[1:], {})
        start = time.process_time()
        process.run()
        spent = time.process_time() - start
    os.dup2(saved, 1)
    print(spent)


main()

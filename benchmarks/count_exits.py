"""Run a program in a machine; print how often its core left it, by cause, as JSON.

    python -m benchmarks.count_exits ENGINE FAULT_AROUND FILL_AHEAD PROGRAM [ARG]...

The sizes are bytes and pages; 4096 and 0 switch the two off.
"""

from __future__ import annotations

import json
import os
import sys


def main() -> None:
    from loadstone import Machine

    engine, around, ahead, *words = sys.argv[1:]
    output = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the guest's output is not ours
    with Machine(
        engine=engine, fault_around=int(around), fill_ahead=int(ahead), rw=["/tmp"], keep_faults=False
    ) as machine:
        status = machine.spawn(words[0], words, dict(os.environ)).run()
        exits = machine.core.exits
    found = {cause: getattr(exits, cause) for cause in type(exits).__slots__} | {"status": status.code}
    os.write(output, json.dumps(found).encode())


main()

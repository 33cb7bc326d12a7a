"""Keeps one program running, and nothing else: no history, no claim, no log, no limit, no health.

Prints when it began each start (CLOCK_MONOTONIC, ns), after the program was started so that printing delays nothing.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time


def main(command: list[str]) -> None:
    while True:
        began = time.monotonic_ns()
        child = subprocess.Popen(command)
        print(began, flush=True)
        ended = os.pidfd_open(child.pid)
        select.select([ended], [], [])
        child.wait()
        os.close(ended)


if __name__ == "__main__":
    main(sys.argv[1:])

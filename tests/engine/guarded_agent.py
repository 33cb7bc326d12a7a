"""The agent, in which a call that blocks the event loop raises instead of blocking.

Only where our own code is on the stack of a coroutine: what is asked of a thread pool may block there.
"""

from __future__ import annotations

import sys

from blockbuster import BlockBuster

from boreas_agent.cli.main import main

AT_START = (("store/guard.py", "__init__"), ("spec/schedules.py", "_zone"))
"""Calls on the loop that are made once, before anybody is served, or once for each time zone: a file of a few kilobytes."""

if __name__ == "__main__":
    guard = BlockBuster(scanned_modules=["boreas_agent"])
    for function in guard.functions.values():
        for file, name in AT_START:
            function.can_block_in(file, name)
    guard.activate()
    sys.exit(main())

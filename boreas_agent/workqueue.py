"""A queue of app names, as client-go's: dirty, processing, delayed; three sets, no more.

A name is worked on by one worker at a time; added while it is worked on, it comes again afterwards, once,
however often it was added. So the queue is never longer than the number of apps.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

SLACK_SECONDS = 0.001
"""Two delays that differ by less end at the same time: reading two clocks makes one moment differ from itself."""


class WorkQueue:
    """For one event loop; not thread-safe. Names wait until it is opened."""

    def __init__(self) -> None:
        self._begin: Callable[[str], object] | None = None
        self._dirty: set[str] = set()
        self._processing: set[str] = set()
        self._delayed: dict[str, asyncio.TimerHandle] = {}

    def open(self, begin: Callable[[str], object]) -> None:
        """Have ``begin`` called with each name whose turn it is; the name counts as processing from then on until :meth:`done`."""
        self._begin = begin
        for name in tuple(self._dirty):
            self._turn(name)

    def add(self, name: str) -> None:
        """``name`` needs a look now."""
        self._undelay(name)
        self._dirty.add(name)
        if name not in self._processing:
            self._turn(name)

    def add_after(self, name: str, seconds: float) -> None:
        """``name`` needs a look in ``seconds``; of several times the earliest counts."""
        if seconds <= 0:
            self.add(name)
            return
        loop = asyncio.get_running_loop()
        at = loop.time() + seconds
        known = self._delayed.get(name)
        if name in self._dirty or (known is not None and known.when() <= at + SLACK_SECONDS):
            return
        self._undelay(name)
        self._delayed[name] = loop.call_at(at, self.add, name)

    def done(self, name: str) -> None:
        """Work on ``name`` has ended; if it was added meanwhile, it comes again."""
        self._processing.discard(name)
        if name in self._dirty:
            self._turn(name)

    def idle(self, name: str) -> bool:
        """Nobody works on it, and nobody is about to."""
        return name not in self._processing and name not in self._dirty

    @property
    def waiting(self) -> int:
        """Names that come next, or again once they are done."""
        return len(self._dirty)

    @property
    def processing(self) -> int:
        """Names that are worked on."""
        return len(self._processing)

    @property
    def delayed(self) -> int:
        """Names that come later."""
        return len(self._delayed)

    def close(self) -> None:
        """Begin nothing any more, and forget all timers."""
        self._begin = None
        for timer in self._delayed.values():
            timer.cancel()
        self._delayed.clear()

    def _turn(self, name: str) -> None:
        if self._begin is not None:
            self._dirty.discard(name)
            self._processing.add(name)
            self._begin(name)

    def _undelay(self, name: str) -> None:
        timer = self._delayed.pop(name, None)
        if timer is not None:
            timer.cancel()

"""A queue of app names, as client-go's: dirty, processing, delayed; three sets, no more.

A name is worked on by one worker at a time; added while it is worked on, it comes again afterwards, once,
however often it was added. So the queue is never longer than the number of apps.
"""

from __future__ import annotations

import asyncio
from collections import deque

SLACK_SECONDS = 0.001
"""Two delays that differ by less end at the same time: reading two clocks makes one moment differ from itself."""


class WorkQueue:
    """For one event loop; not thread-safe."""

    def __init__(self) -> None:
        self._ready: deque[str] = deque()
        self._dirty: set[str] = set()
        self._processing: set[str] = set()
        self._delayed: dict[str, asyncio.TimerHandle] = {}
        self._getter: asyncio.Future[None] | None = None

    def add(self, name: str) -> None:
        """``name`` needs a look now."""
        self._undelay(name)
        if name in self._dirty:
            return
        self._dirty.add(name)
        if name not in self._processing:
            self._offer(name)

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

    async def get(self) -> str:
        """The next name; it counts as processing until :meth:`done`. For one caller at a time."""
        while not self._ready:
            self._getter = asyncio.get_running_loop().create_future()
            await self._getter
        name = self._ready.popleft()
        self._dirty.discard(name)
        self._processing.add(name)
        return name

    def done(self, name: str) -> None:
        """Work on ``name`` has ended; if it was added meanwhile, it comes again."""
        self._processing.discard(name)
        if name in self._dirty:
            self._offer(name)

    def idle(self, name: str) -> bool:
        """Nobody works on it, and nobody is about to."""
        return name not in self._processing and name not in self._dirty

    @property
    def waiting(self) -> int:
        """Names that nobody works on yet."""
        return len(self._ready)

    @property
    def processing(self) -> int:
        """Names that are worked on."""
        return len(self._processing)

    @property
    def delayed(self) -> int:
        """Names that come later."""
        return len(self._delayed)

    def close(self) -> None:
        """Forget all timers."""
        for timer in self._delayed.values():
            timer.cancel()
        self._delayed.clear()

    def _offer(self, name: str) -> None:
        self._ready.append(name)
        if self._getter is not None and not self._getter.done():
            self._getter.set_result(None)

    def _undelay(self, name: str) -> None:
        timer = self._delayed.pop(name, None)
        if timer is not None:
            timer.cancel()

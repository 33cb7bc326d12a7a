"""A bounded way to say 'look at this app': names, each at most once, never lost while somebody listens."""

from __future__ import annotations

import asyncio


class Mailbox:
    """Holds each name once until it is taken: as many as there are apps, whatever happens to them."""

    def __init__(self) -> None:
        self._names: dict[str, None] = {}
        self._filled = asyncio.Event()

    def put(self, name: str) -> None:
        """Something happened to ``name``."""
        self._names[name] = None
        self._filled.set()

    async def take(self) -> str:
        """The name that waits longest; waits for one."""
        while not self._names:
            self._filled.clear()
            await self._filled.wait()
        name = next(iter(self._names))
        del self._names[name]
        return name

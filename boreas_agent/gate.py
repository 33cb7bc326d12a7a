"""A bound on how many do something at once that is fair between apps."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass


@dataclass(slots=True)
class _Share:
    places: asyncio.Semaphore
    users: int = 0


class Gate:
    """At most ``size`` at once, and at most ``share`` of them for one app: one that hangs holds up only itself."""

    def __init__(self, size: int, share: int) -> None:
        self._places = asyncio.Semaphore(size)
        self._share = share
        self._shares: dict[str, _Share] = {}

    @asynccontextmanager
    async def place(self, app: str) -> AsyncIterator[None]:
        """Wait for a place, first come first served, and hold it for the block."""
        share = self._shares.setdefault(app, _Share(asyncio.Semaphore(self._share)))
        share.users += 1
        try:
            async with share.places, self._places:
                yield
        finally:
            share.users -= 1
            if not share.users:
                del self._shares[app]

"""A bound on how many do something at once that is fair between apps."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from msgspec import Struct


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

    def place(self, app: str) -> Place:
        """Wait for a place, first come first served, and hold it for the block."""
        return Place(self, app)

    async def enter(self, app: str) -> None:
        share = self._shares.get(app)
        if share is None:
            share = self._shares[app] = _Share(asyncio.Semaphore(self._share))
        share.users += 1
        try:
            await share.places.acquire()
            try:
                await self._places.acquire()
            except BaseException:
                share.places.release()
                raise
        except BaseException:
            self._leave(app, share)
            raise

    def leave(self, app: str) -> None:
        share = self._shares[app]
        self._places.release()
        share.places.release()
        self._leave(app, share)

    def _leave(self, app: str, share: _Share) -> None:
        share.users -= 1
        if not share.users:
            del self._shares[app]


class Place(Struct, frozen=True):
    """One user's; written out, because a generator for it would be a tenth of what a probe costs."""

    gate: Gate
    app: str

    async def __aenter__(self) -> None:
        await self.gate.enter(self.app)

    async def __aexit__(self, *_: object) -> None:
        self.gate.leave(self.app)

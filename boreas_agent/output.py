"""What an app writes, wherever its instances are, or were before it changed its type."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

from boreas_agent.drivers.base import Driver
from boreas_agent.errors import NotFound
from boreas_agent.model import OutputLine, OutputQuery
from boreas_agent.store.store import Store

Batches = AsyncGenerator[Sequence[OutputLine], None]


class Outputs:
    """Needs the heads, to know whom to ask, and the drivers."""

    def __init__(self, store: Store, drivers: Sequence[Driver]) -> None:
        self._store = store
        self._drivers: Mapping[str, Driver] = {kind: driver for driver in drivers for kind in driver.kinds}

    async def open(self, app: str, query: OutputQuery) -> Batches:
        """The lines in batches, the first at once; with ``follow`` until the app is gone. Raises NotFound, Unavailable, Conflict."""
        head = self._store.head(app)
        if head is None:
            raise NotFound(f"there is no app named {app!r}")
        kinds = head.homes | {head.revision.pkg.type, head.running.pkg.type}
        streams = [driver.output(app, query) for driver in {self._drivers[kind] for kind in kinds}]
        first = [await anext(stream) for stream in streams]
        return self._batches(app, streams, first)

    async def _batches(self, app: str, streams: Sequence[Batches], first: Sequence[Sequence[OutputLine]]) -> Batches:
        waiting: dict[asyncio.Future[Any], Batches] = {}
        try:
            for batch in first:
                yield batch
            waiting = {asyncio.ensure_future(_next(stream)): stream for stream in streams}
            while waiting and self._store.head(app) is not None:
                changed = asyncio.ensure_future(self._store.changed(app))
                done, _ = await asyncio.wait({*waiting, changed}, return_when=asyncio.FIRST_COMPLETED)
                changed.cancel()
                for one in done - {changed}:
                    stream = waiting.pop(one)
                    if (found := one.result()) is not None:
                        waiting[asyncio.ensure_future(_next(stream))] = stream
                        yield found
        finally:
            for one in waiting:
                one.cancel()
            if waiting:
                await asyncio.wait(waiting)
            for stream in streams:
                await stream.aclose()


async def _next(stream: Batches) -> Sequence[OutputLine] | None:
    return await anext(stream, None)

"""``GET /v1/events``: what happened, as a page of JSON or as a stream of Server-Sent Events.

A stream is level-triggered like everything else: a commit wakes it, and it reads what follows the last id it sent. So it costs
the store nothing but reads, misses nothing however slow its reader is, and goes on anywhere by ``Last-Event-ID``.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from aiohttp import web
from aiohttp_sse import sse_response
from msgspec import Struct

from boreas_agent.api import render
from boreas_agent.api.incoming import flag, whole_number
from boreas_agent.errors import FieldError, Invalid, Transient
from boreas_agent.spec import APP_PATTERN

if TYPE_CHECKING:
    from collections.abc import Iterator

    from boreas_agent.store.store import Store

MOST_READERS = 64
"""Streams at a time: each keeps one of the places for connections for as long as it lasts."""
PAGE = 200
LOOK_AGAIN_SECONDS = 1.0
GATHER_SECONDS = 0.1
"""What happens within that time is read together."""
HEARTBEAT_SECONDS = 15.0
_AGAIN_MILLISECONDS = 1000
_ID = "Last-Event-ID"


class Wanted(Struct, frozen=True):
    """What a request asks for; ``after`` None: the newest. ``resumed``: that id was given out by an agent."""

    app: str | None
    after: int | None
    limit: int
    follow: bool
    resumed: bool


def wanted(request: web.Request) -> Wanted:
    """From the query; a reader that comes back says in ``Last-Event-ID`` where it was. Raises Invalid."""
    app = request.query.get("app") or None
    if app is not None and not re.fullmatch(APP_PATTERN, app):
        raise Invalid((FieldError("app", "must be the name of an app"),))
    follow = flag(request, "follow") and request.method == "GET"
    limit = whole_number(request, "limit", default=PAGE // 2, most=1000) or 1
    after = whole_number(request, "after", default=None, most=2**62, least=0)
    came_back = request.headers.get(_ID, "") if follow else ""
    if came_back:
        if not re.fullmatch(r"[0-9]{1,18}", came_back):
            raise Invalid((FieldError(_ID, "must be the id of an event"),))
        after = int(came_back)
    return Wanted(app, after, limit, follow, bool(came_back))


@dataclass(slots=True)
class Readers:
    """Counts the streams there are."""

    streams: int = field(default=0)

    @contextmanager
    def one_more(self) -> Iterator[None]:
        """Raises Transient where there are as many as there may be."""
        if self.streams >= MOST_READERS:
            raise Transient(f"{MOST_READERS} others are following the events already; try again later, or ask without follow")
        self.streams += 1
        try:
            yield
        finally:
            self.streams -= 1


async def stream(request: web.Request, store: Store, of: Wanted, given_up: Callable[[], bool]) -> web.StreamResponse:
    """Sends what there is and then whatever comes, until the reader leaves or ``given_up`` says so."""
    bell = store.next_event
    rows = await store.events(of.app, of.after, of.limit if of.after is None else PAGE)
    last, ours = of.after or 0, of.resumed
    async with sse_response(request, headers={"Server": "boreas-agent"}, sep="\n", ping_interval=HEARTBEAT_SECONDS) as response:
        # Whoever left, or reads no more, comes back by Last-Event-ID; nothing is left to answer here.
        with suppress(ConnectionError, TimeoutError, Transient):
            await response.write(f"retry: {_AGAIN_MILLISECONDS}\n\n".encode())
            while response.is_connected() and not given_up():
                for row in rows:
                    last, ours = int(row["id"]), True
                    await response.send(render.dumps(row).decode().rstrip(), id=str(last))
                if not rows and ours and last > await store.newest_event():
                    last = 0  # the database was damaged and is a new one, whose ids begin anew
                elif not rows:
                    await _ring(bell)
                bell = store.next_event
                rows = await store.events(of.app, last, PAGE)
    return response


async def _ring(bell: asyncio.Event) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(LOOK_AGAIN_SECONDS):
            await bell.wait()
            await asyncio.sleep(GATHER_SECONDS)

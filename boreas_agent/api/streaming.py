"""Answers that go on: sent piece by piece until there is no more, nobody listens any more, or the agent stops.

Only where there is no more does the answer end; otherwise its connection is cut, so that a client sees that it is not whole.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress

from aiohttp import web

LOOK_AGAIN_SECONDS = 1.0
"""A client that left while there was nothing to send is noticed after so long."""


async def stream(
    request: web.Request, content_type: str, pieces: AsyncGenerator[bytes, None], given_up: Callable[[], bool]
) -> web.StreamResponse:
    """Send ``pieces``; ``given_up`` says that nobody waits for more. Closes ``pieces``."""
    response = web.StreamResponse(headers={"Content-Type": content_type, "Server": "boreas-agent", "Cache-Control": "no-store"})
    waiting: asyncio.Future[bytes | None] | None = None
    try:
        await response.prepare(request)
        whole = request.method == "HEAD"
        while not whole and not given_up():
            waiting = waiting or asyncio.ensure_future(_next(pieces))
            await asyncio.wait({waiting}, timeout=LOOK_AGAIN_SECONDS)
            if waiting.done():
                piece, waiting = waiting.result(), None
                whole = piece is None
                if piece:
                    await response.write(piece)
        if not whole:
            _cut(request)
        with suppress(ConnectionError):
            await response.write_eof()
    except Exception:
        _cut(request)  # its head is sent, so that no other answer can follow
        raise
    finally:
        if waiting is not None and not waiting.done():
            waiting.cancel()
            await asyncio.wait({waiting})
        await pieces.aclose()
    return response


def _cut(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.close()


async def _next(pieces: AsyncGenerator[bytes, None]) -> bytes | None:
    return await anext(pieces, None)

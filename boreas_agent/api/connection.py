"""One connection: aiohttp's, with deadlines for its client, and with its own errors in the API's form too.

What is not HTTP never reaches the application; aiohttp would answer it in plain text and log a traceback at
error level, so that a port scanner fills the log. Here it is a debug line and problem+json.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong

from boreas_agent.api.places import Places
from boreas_agent.api.problems import answer, problem

_log = logging.getLogger(__name__)

REQUEST_SECONDS = 5.0
"""From connecting to the end of the first request's head, and for every later one from its first byte on."""
IDLE_SECONDS = 120.0
"""Longer than the 90 s after which Go's HTTP client drops an idle connection, so that the client is the one to close it."""
STALLED_SECONDS = 30.0
"""How long a client may leave an answer unread in full buffers."""
LINGER_SECONDS = 2.0
"""How long the rest of a refused body is read and thrown away, so that the client gets to read the answer."""

Outdated = Callable[[], bool]


class Connection(web.RequestHandler):
    """Overrides what aiohttp answers where the application is not asked, and knows whose turn it is."""

    __slots__ = ("_heard", "_outdated", "_owing", "_places", "_stalled", "_wire")

    def __init__(self, server: web.Server, places: Places, outdated: Outdated, **options: Any) -> None:
        super().__init__(server, **options)
        self._places = places
        self._outdated = outdated  # what the connection was let in by is no longer in force
        self._heard = 0.0
        self._owing: float | None = None  # since when the client owes a whole request
        self._stalled: float | None = None  # since when it takes nothing of an answer
        self._wire: asyncio.Transport | None = None

    # --- as a guest ------------------------------------------------------------------------------

    def idle_since(self) -> float | None:
        request = self._current_request
        at_work = request is not None and request.content.is_eof()
        return None if at_work else self._heard

    def look_after(self, now: float) -> None:
        if self._wire is not None and self._wire.is_closing() and self._stalled is None:
            self._stalled = now  # closing waits for the client to take what is left
        if (self._owing is not None and now - self._owing > REQUEST_SECONDS) or (
            self._stalled is not None and now - self._stalled > STALLED_SECONDS
        ):
            self.evict()
        elif self._outdated():
            self._finish()

    def evict(self) -> None:
        if self._wire is not None:
            self._wire.abort()

    def _finish(self) -> None:
        """Close it, after the answer under way."""
        if self._waiter is not None and not self._waiter.done():
            self.force_close()
        else:
            self.close()

    # --- what the transport says -----------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        assert isinstance(transport, asyncio.Transport)
        self._wire = transport
        self._heard = self._owing = self._loop.time()
        if not self._places.enter(self):
            self.evict()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._places.leave(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._heard = self._loop.time()
        begun = self._request_count
        super().data_received(data)
        if self._request_count != begun:
            self._owing = None
        elif self._owing is None and data and self._waiter is not None:
            self._owing = self._heard

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stalled = self._loop.time()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stalled = None

    # --- what aiohttp would answer ---------------------------------------------------------------

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """The answer where parsing failed, or where something raised outside the application's own guard."""
        if request.writer.output_size > 0:
            raise ConnectionError("the answer has begun, so it cannot be replaced by an error")
        response = _malformed(request, exc) if isinstance(exc, HttpProcessingError) else _failed(request, status, exc)
        response.force_close()
        return response


def connections(server: web.Server, places: Places) -> Callable[[Outdated], Connection]:
    """Makes the connections of a listener."""
    # No decompression: a small compressed body could unfold into a large one. No access log: history is in the database.
    return partial(
        Connection,
        server,
        places,
        loop=asyncio.get_running_loop(),
        access_log=None,
        auto_decompress=False,
        keepalive_timeout=IDLE_SECONDS,
        lingering_time=LINGER_SECONDS,
        logger=_log,
    )


def _malformed(request: web.BaseRequest, error: HttpProcessingError) -> web.Response:
    _log.debug("malformed request", exc_info=error, extra={"peer": request.remote})
    if isinstance(error, LineTooLong):
        return problem(431, "the request line or a header is too long (more than 8190 bytes)")
    return problem(400, f"the request is not well-formed HTTP: {_first_line(error.message)}")


def _first_line(message: str) -> str:
    """The parser's message goes on with the bytes it stumbled over."""
    return message.partition("\n")[0].rstrip(" :")[:200]


def _failed(request: web.BaseRequest, status: int, error: BaseException | None) -> web.Response:
    if isinstance(error, Exception):
        return answer(request, error)
    return problem(status, "the agent failed to handle this request")

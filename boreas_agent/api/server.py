"""The port: aiohttp's server with limits, whose own errors are in the API's form too.

What is not HTTP never reaches the application; aiohttp would answer it in plain text and log a traceback at
error level, so that a port scanner fills the log. Here it is a debug line and problem+json.
"""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong

from boreas_agent.api.problems import answer, problem
from boreas_agent.errors import StartupError

_log = logging.getLogger(__name__)

MAX_CONNECTIONS = 512
"""Half of the usual limit of 1024 open files: the agent itself must still reach its database, the engine and its apps."""
IDLE_SECONDS = 120.0
"""Longer than the 90 s after which Go's HTTP client drops an idle connection, so that the client is the one to close it."""
LINGER_SECONDS = 2.0
"""How long the rest of a refused body is read and thrown away, so that the client gets to read the answer."""
SHUTDOWN_SECONDS = 5.0


class _Connection(web.RequestHandler):
    """One connection; overrides what aiohttp answers where the application is not asked."""

    __slots__ = ("_server",)

    def __init__(self, server: web.Server, **options: Any) -> None:
        super().__init__(server, **options)
        self._server = server

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if len(self._server.connections) > MAX_CONNECTIONS:
            _log.warning("too many connections: closed a new one", extra={"limit": MAX_CONNECTIONS})
            self.force_close()

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """The answer where parsing failed, or where something raised outside the application's own guard."""
        if request.writer.output_size > 0:
            raise ConnectionError("the answer has begun, so it cannot be replaced by an error")
        response = _malformed(request, exc) if isinstance(exc, HttpProcessingError) else _failed(request, status, exc)
        response.force_close()
        return response


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


@asynccontextmanager
async def listen(app: web.Application, host: str, port: int) -> AsyncIterator[tuple[str, int]]:
    """Serves ``app`` while the context lasts; gives the address and port it listens on. Raises StartupError.

    Leaving it stops accepting, lets requests under way finish for ``SHUTDOWN_SECONDS`` and then cuts them off.
    """
    runner = web.AppRunner(app, shutdown_timeout=SHUTDOWN_SECONDS)
    await runner.setup()
    try:
        assert runner.server is not None  # there is one after setup()
        server = await _bind(runner.server, host, port)
        try:
            address = server.sockets[0].getsockname()
            yield address[0], address[1]
        finally:
            server.close()
    finally:
        await runner.cleanup()


async def _bind(app_server: web.Server, host: str, port: int) -> asyncio.Server:
    loop = asyncio.get_running_loop()
    # No decompression: a small compressed body could unfold into a large one. No access log: history is in the database.
    connection = partial(
        _Connection,
        app_server,
        loop=loop,
        access_log=None,
        auto_decompress=False,
        keepalive_timeout=IDLE_SECONDS,
        lingering_time=LINGER_SECONDS,
        logger=_log,
    )
    try:
        return await loop.create_server(connection, host, port, backlog=1024)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise StartupError(f"cannot listen on {host}:{port}: another program has taken port {port}") from error
        raise StartupError(f"cannot listen on {host}:{port}: {error.strerror or error}") from error

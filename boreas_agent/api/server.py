"""The port: where connections come in, plain or through a TLS handshake."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from ipaddress import ip_address

from aiohttp import web

from boreas_agent.api.connection import connections
from boreas_agent.api.handshake import Handshake
from boreas_agent.api.places import Places
from boreas_agent.api.security import Security
from boreas_agent.errors import StartupError

_log = logging.getLogger(__name__)

SHUTDOWN_SECONDS = 5.0
ACCEPTED_AT_ONCE = 128
"""asyncio accepts that many before it looks at what any of them says; with all places taken they fit into the limit of open files."""
QUEUE = 1024
"""Connections that wait in the kernel until they are accepted."""


@asynccontextmanager
async def listen(app: web.Application, host: str, port: int, security: Security | None = None) -> AsyncIterator[tuple[str, int]]:
    """Serves ``app`` while the context lasts; gives the address and port it listens on. Raises StartupError.

    Leaving it stops accepting, lets requests under way finish for ``SHUTDOWN_SECONDS`` and then cuts them off.
    """
    security = security or Security()
    runner = web.AppRunner(app, shutdown_timeout=SHUTDOWN_SECONDS)
    await runner.setup()
    places = Places()
    try:
        assert runner.server is not None  # there is one after setup()
        server = await _bind(_entrance(runner.server, places, security), host, port)
        try:
            _warn_of_clear_text(server, security)
            address = server.sockets[0].getsockname()
            async with security.followed():
                yield address[0], address[1]
        finally:
            server.close()
    finally:
        await runner.cleanup()
        places.close()


def _entrance(server: web.Server, places: Places, security: Security) -> Callable[[], asyncio.Protocol]:
    connect = connections(server, places)
    if security.tls is not None:
        return partial(Handshake, places, security.tls, connect)
    return partial(connect, lambda: False)


async def _bind(entrance: Callable[[], asyncio.Protocol], host: str, port: int) -> asyncio.Server:
    try:
        server = await asyncio.get_running_loop().create_server(entrance, host, port, backlog=ACCEPTED_AT_ONCE)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise StartupError(f"cannot listen on {host}:{port}: another program has taken port {port}") from error
        raise StartupError(f"cannot listen on {host}:{port}: {error.strerror or error}") from error
    for listening in server.sockets:
        with socket.socket(fileno=os.dup(listening.fileno())) as same:
            same.listen(QUEUE)
    return server


def _warn_of_clear_text(server: asyncio.Server, security: Security) -> None:
    if security.tokens is None or security.tls is not None:
        return
    open_to = [str(listening.getsockname()[0]) for listening in server.sockets]
    if not all(ip_address(address.partition("%")[0]).is_loopback for address in open_to):
        _log.warning(
            "tokens travel in clear text: the port is open to other machines without TLS; --tls-cert and --tls-key would protect them",
            extra={"listens_on": ", ".join(open_to)},
        )

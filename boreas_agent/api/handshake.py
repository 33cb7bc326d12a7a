"""The TLS handshake of one connection, begun with the certificates that are in force at that moment.

asyncio's own TLS listener keeps its context for ever and does not say how many handshakes are under way; here each
holds a place like any other connection, and can be made to leave it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from boreas_agent.api.connection import Connection, Outdated
from boreas_agent.api.places import Places
from boreas_agent.api.tls import Tls, wire
from boreas_agent.api.watched import Watched

_log = logging.getLogger(__name__)

HANDSHAKE_SECONDS = 5.0
CLOSING_SECONDS = 2.0
"""How long a client is waited for that does not answer the end of TLS."""


class Handshake(asyncio.Protocol):
    """What is under and beside TLS until it is established; then a Connection takes over."""

    def __init__(self, places: Places, tls: Watched[Tls], connect: Callable[[Outdated], Connection]) -> None:
        self._places, self._tls, self._connect = places, tls, connect
        self._begun = 0.0
        self._early: list[bytes] = []  # what the client sent right behind its handshake
        self._lost = False
        self._transport: asyncio.Transport | None = None
        self._shaking: asyncio.Task[None] | None = None

    # --- as a guest ------------------------------------------------------------------------------

    def idle_since(self) -> float | None:
        return self._begun

    def look_after(self, _now: float) -> None:
        """The handshake has its own deadline."""

    def evict(self) -> None:
        if self._shaking is not None:
            self._shaking.cancel()
        if self._transport is not None:
            self._transport.abort()

    # --- what the transport says -----------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        loop = asyncio.get_running_loop()
        self._begun = loop.time()
        if self._places.enter(self):
            transport.pause_reading()  # all bytes belong to TLS
            self._shaking = loop.create_task(self._shake(transport))
        else:
            transport.abort()

    def data_received(self, data: bytes) -> None:
        self._early.append(data)

    def connection_lost(self, _error: Exception | None) -> None:
        self._lost = True
        self._places.leave(self)

    async def _shake(self, plain: asyncio.Transport) -> None:
        used = self._tls.value
        wire.set(plain)
        try:
            transport = await asyncio.get_running_loop().start_tls(
                plain, self, used.context, server_side=True, ssl_handshake_timeout=HANDSHAKE_SECONDS, ssl_shutdown_timeout=CLOSING_SECONDS
            )
        except OSError as error:  # SSLError is one, and so is a lost connection
            _log.debug("TLS handshake failed", extra={"peer": plain.get_extra_info("peername"), "error": str(error)})
            return
        finally:
            self._places.leave(self)
        if transport is None or self._lost or transport.is_closing():
            plain.abort()
            return
        connection = self._connect(lambda: self._tls.value.client_ca != used.client_ca)
        transport.set_protocol(connection)
        connection.connection_made(transport)
        for data in self._early:
            connection.data_received(data)

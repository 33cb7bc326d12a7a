"""What calls to other people's HTTP servers have in common: names are looked up aside, and failures are put into words."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from typing import Any, TypeAlias

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from boreas_agent.aside import Aside

MOST_WORDS = 200
"""Characters of somebody else's words that are repeated in a message of ours."""

Address: TypeAlias = tuple[socket.AddressFamily, socket.SocketKind, int, str, tuple[Any, ...]]


class Names(AbstractResolver):
    """Names to addresses, aside: a name server that is away holds a thread for half a minute."""

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._aside = Aside("resolver")

    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET) -> list[ResolveResult]:
        def look_up() -> Sequence[Address]:
            return socket.getaddrinfo(host, port, family, socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)

        try:
            found = await self._aside.run(look_up, self._timeout / 2)
        except TimeoutError as error:
            raise socket.gaierror(socket.EAI_AGAIN, "no name server answers") from error
        return [
            ResolveResult(hostname=host, host=str(address[0]), port=int(address[1]), family=kind, proto=proto, flags=socket.AI_NUMERICHOST)
            for kind, _, proto, _, address in found
        ]

    async def close(self) -> None:
        """Nothing to let go of."""


def quoted(words: str) -> str:
    """Somebody else's words, on one line and not too many of them."""
    plain = " ".join("".join(c if c.isprintable() else " " for c in words).split())
    return plain if len(plain) <= MOST_WORDS else f"{plain[:MOST_WORDS]}…"


def why(error: Exception, timeout: float) -> str:
    """What went wrong with a call that may take ``timeout`` seconds; completes a sentence."""
    match error:
        case TimeoutError():
            return f"no answer within {timeout:g} s"
        case aiohttp.ClientConnectorDNSError() | socket.gaierror():
            return "its name cannot be resolved"
        case aiohttp.ClientConnectorCertificateError():
            return f"its certificate is not trusted ({quoted(str(error.certificate_error))})"
        case aiohttp.ClientSSLError():
            return f"TLS failed ({quoted(str(error.os_error))})"
        case aiohttp.ServerDisconnectedError():
            return "it closed the connection without an answer"
        case aiohttp.ClientResponseError():
            return f"it does not speak HTTP as it should ({quoted(error.message)})"  # as text it would name the address, query and all
        case aiohttp.ClientPayloadError():
            return "it does not speak HTTP as it should (it broke off in the middle of its answer)"
        case OSError() if error.errno:
            return os.strerror(error.errno).lower()
        case OSError():
            return quoted(str(error))
        case _:
            return type(error).__name__

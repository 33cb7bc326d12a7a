"""The engine's calls that may take for ever (events, pull, wait), read on the event loop itself.

A thread that blocks in one of them could not be cancelled, and a thousand stops with a long grace would
need a thousand threads. Here cancelling the task closes the connection, and that is also what makes the engine give a
pull up. The request/response calls stay with the SDK (``docker_api``).
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from msgspec import Struct, field

from boreas_agent.drivers.docker_api import DockerApi, refused, unreachable
from boreas_agent.errors import Missing, Transient, Unavailable

_MOST_PENDING = 16 * 2**20
"""Bytes of one message; an event carries all labels, and with them a revision record of up to 1 MiB."""
_HEADER = 8  # of a frame: stream, three zeros, length
_NOWHERE = re.compile(r"manifest unknown|name unknown|does not exist|: not found$", re.IGNORECASE)
"""What engines say in the middle of a pull, when it is too late for a status code, of an image that the registry does not have."""


class _Request(Struct, frozen=True):
    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Mapping[str, Any] | None = None


class Streams:
    """One HTTP session over the engine's socket. ``stall``: seconds without a byte after which a pull is given up."""

    def __init__(self, api: DockerApi, *, stall: float) -> None:
        self._api = api
        self._stall = stall
        self._session: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        """Make the session; connects nothing yet."""
        connector = aiohttp.UnixConnector(self._api.socket_path, limit=0, force_close=True)
        self._session = aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=None, sock_connect=5.0))

    async def close(self) -> None:
        """End every stream."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def pull(
        self, query: Mapping[str, str], credentials: str | None, what: str, hear: Callable[[Mapping[str, Any]], None] = lambda _: None
    ) -> None:
        """Pull an image; returns when the engine has all of it. Raises Refused, Missing, Transient, Unavailable.

        ``hear`` is told what the engine says on the way.
        """
        request = _Request("POST", "/images/create", query, {"X-Registry-Auth": credentials} if credentials else {})
        async for message in self._messages(request, what, silence=self._stall):
            if "error" in message:
                said = " ".join(str(message["error"]).split())
                raise (Missing if _NOWHERE.search(said) else Transient)(f"cannot {what}: {said}")
            hear(message)

    async def wait(self, container: str, what: str, seconds: float) -> bool:
        """Whether the container stopped running within ``seconds``. Raises Refused (404: gone), Unavailable."""
        try:
            async with asyncio.timeout(seconds):
                async for _ in self._messages(_Request("POST", f"/containers/{container}/wait", {"condition": "not-running"}), what):
                    return True
                raise Unavailable(f"cannot {what}: Docker at {self._api.socket_path} ended the call without an answer")
        except TimeoutError:
            return False

    def events(self, filters: Mapping[str, list[str]], since: float) -> AsyncGenerator[dict[str, Any], None]:
        """The engine's events from ``since`` on; first an empty one, once the engine has taken the request."""
        query = {"filters": json.dumps(filters), "since": f"{since:.3f}"}
        return self._messages(_Request("GET", "/events", query), "listen to the engine's events", greet=True)

    async def _messages(
        self, request: _Request, what: str, *, silence: float | None = None, greet: bool = False
    ) -> AsyncGenerator[dict[str, Any], None]:
        """The JSON messages of a streaming answer; raises Transient after ``silence`` seconds without any."""
        try:
            async with self._answer(request, what, silence=silence) as response:
                if greet:
                    yield {}
                async for line in _lines(response.content):
                    yield json.loads(line)
        except TimeoutError as error:
            if silence is None:
                raise Unavailable(f"cannot reach Docker at {self._api.socket_path}: it accepts no connection") from error
            raise Transient(f"cannot {what}: no progress for {silence:g} s") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise unreachable(self._api.socket_path, [error]) from error

    @asynccontextmanager
    async def _answer(self, request: _Request, what: str, *, silence: float | None = None) -> AsyncIterator[aiohttp.ClientResponse]:
        """An answer that is not an error; raises Refused."""
        if self._session is None:
            raise Unavailable("the Docker driver is not open")
        url = f"http://docker/v{await self._api.version()}{request.path}"
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=5.0, sock_read=silence)
        async with self._session.request(
            request.method, url, params=request.query, headers=request.headers, json=request.body, timeout=timeout
        ) as response:
            if response.status >= 300:
                raise refused(what, response.status, await response.read())
            yield response

    async def ask(self, method: str, path: str, what: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """A short call with a JSON answer, which the caller bounds in time. Raises Refused, Unavailable."""
        try:
            async with self._answer(_Request(method, path, {}, body=body), what) as response:
                answer: dict[str, Any] = await response.json(content_type=None)
                return answer
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise unreachable(self._api.socket_path, [error]) from error

    def chunks(self, path: str, what: str, body: Mapping[str, Any]) -> AsyncGenerator[bytes, None]:
        """The bytes of a streaming answer to a POST, as they come. Raises Refused, Unavailable."""
        return self._bytes(_Request("POST", path, {}, body=body), what)

    def logs(self, container: str, query: Mapping[str, str], what: str) -> AsyncGenerator[bytes, None]:
        """What a container wrote, in frames (see :func:`frames`). Raises Refused, Unavailable."""
        return self._bytes(_Request("GET", f"/containers/{container}/logs", query), what)

    async def _bytes(self, request: _Request, what: str) -> AsyncGenerator[bytes, None]:
        try:
            async with self._answer(request, what) as response:
                async for chunk in response.content.iter_any():
                    yield chunk
        except (aiohttp.ClientError, OSError) as error:
            raise unreachable(self._api.socket_path, [error]) from error


async def frames(chunks: AsyncGenerator[bytes, None]) -> AsyncGenerator[tuple[int, bytes], None]:
    """What is in the frames of the engine's multiplexed stream, and of which stream (1 stdout, 2 stderr); a long one comes in pieces."""
    pending, stream, left = bytearray(), 0, 0
    async for chunk in chunks:
        pending += chunk
        while pending:
            if not left:
                if len(pending) < _HEADER:
                    break
                stream, left = pending[0], int.from_bytes(pending[4:_HEADER], "big")
                del pending[:_HEADER]
                continue
            piece = bytes(pending[:left])
            left -= len(piece)
            del pending[: len(piece)]
            yield stream, piece


async def _lines(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """Lines of any length up to a bound; ``readline`` gives up at 64 KiB."""
    pending = bytearray()
    async for chunk in content.iter_any():
        pending += chunk
        if len(pending) > _MOST_PENDING:
            raise ValueError(f"a message of more than {_MOST_PENDING} bytes")
        *whole, rest = pending.split(b"\n")
        pending = bytearray(rest)
        for line in whole:
            if line.strip():
                yield bytes(line)
    if pending.strip():
        yield bytes(pending)

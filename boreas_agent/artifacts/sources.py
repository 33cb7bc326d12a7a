"""Where artifacts come from: as a stream of bytes from an offset on, over HTTP or from a file of the node."""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from urllib.parse import quote

import aiohttp
from msgspec import Struct
from yarl import URL

from boreas_agent import __version__
from boreas_agent.artifacts.limits import InThread, Limits
from boreas_agent.artifacts.node_files import open_below, read_headers
from boreas_agent.errors import Missing, Transient
from boreas_agent.outward import Names, quoted, why
from boreas_agent.spec import Artifact

MOST_REDIRECTS = 5
CONNECT_SECONDS = 30.0
BUFFER = 512 * 1024
_LATER = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS}
_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")


class Incoming(Struct, frozen=True):
    """``chunks`` are the bytes from ``start`` on, of ``total`` in all, where that is known."""

    start: int
    total: int | None
    chunks: AsyncIterator[bytes]


class Sources:
    """Opens them. The message of what it raises completes 'cannot fetch NAME: …'."""

    def __init__(self, limits: Limits, in_thread: InThread) -> None:
        self._limits = limits
        self._in_thread = in_thread

    @asynccontextmanager
    async def open(self, artifact: Artifact, offset: int) -> AsyncIterator[Incoming]:
        """The artifact from ``offset`` on, or, where that can't be had, from its beginning. Raises Transient, Missing, Terminal."""
        try:
            opened = self._open_file(artifact, offset) if artifact.is_file else self._open_http(artifact, offset)
            async with opened as incoming:
                yield incoming
        except (aiohttp.ClientError, TimeoutError, ssl.SSLError) as error:
            raise Transient(why(error, self._limits.stall_seconds)) from error
        except UnicodeError as error:
            raise Missing("no host can have such a name") from error

    # --- files -----------------------------------------------------------------------------------

    @asynccontextmanager
    async def _open_file(self, artifact: Artifact, offset: int) -> AsyncIterator[Incoming]:
        try:
            file = await self._in_thread(open_below, self._limits.file_roots, artifact.file_path, "agent.artifacts.file_roots")
        except OSError as error:
            raise Missing(error.strerror) from error
        try:
            size = os.fstat(file).st_size
            start = offset if offset <= size else 0
            yield Incoming(start, size, self._read(file, start))
        finally:
            os.close(file)

    async def _read(self, file: int, offset: int) -> AsyncIterator[bytes]:
        while chunk := await self._in_thread(os.pread, file, BUFFER, offset):
            offset += len(chunk)
            yield chunk

    # --- http ------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _open_http(self, artifact: Artifact, offset: int) -> AsyncIterator[Incoming]:
        secret = await self._headers(artifact)
        async with self._session() as session:
            answer = await self._get(session, artifact, secret, offset)
            try:
                if offset and not _continues(answer, offset):
                    answer.close()
                    answer = await self._get(session, artifact, secret, 0)
                yield _incoming(answer, offset)
            finally:
                answer.close()

    async def _headers(self, artifact: Artifact) -> dict[str, str]:
        """Read anew each time: what was changed is in force, and nothing of it is kept."""
        if artifact.headers_from is None:
            return {}
        try:
            return dict(await self._in_thread(read_headers, self._limits.header_roots, artifact.headers_from))
        except OSError as error:
            raise Transient(f"{artifact.headers_from}: {error.strerror}") from error

    def _session(self) -> aiohttp.ClientSession:
        """No cookies, no proxy from the environment, nothing decoded: what counts are the bytes."""
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(resolver=Names(CONNECT_SECONDS), use_dns_cache=False, force_close=True, limit=1),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=self._limits.stall_seconds),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            read_bufsize=BUFFER,
            headers={"Accept": "*/*", "Accept-Encoding": "identity", "User-Agent": f"boreas-agent/{__version__}"},
        )

    async def _get(self, session: aiohttp.ClientSession, artifact: Artifact, secret: dict[str, str], offset: int) -> aiohttp.ClientResponse:
        """Follows redirects by itself: secrets are for the one they were meant for, and nobody else."""
        first = url = URL(quote(artifact.url, safe=_PLAIN), encoded=True)
        for _ in range(MOST_REDIRECTS + 1):
            headers = (secret if url.origin() == first.origin() else {}) | ({"Range": f"bytes={offset}-"} if offset else {})
            answer = await session.get(url, headers=headers, allow_redirects=False)
            if answer.status not in _REDIRECTS:
                return answer
            answer.close()
            url = _next(url, answer.headers.get("Location", ""))
        raise Missing(f"it is redirected more than {MOST_REDIRECTS} times")


_PLAIN = "".join(map(chr, range(0x21, 0x7F)))
"""What stays as it is in an address; a signature is for the very letters that were signed."""
_REDIRECTS = {301, 302, 303, 307, 308}


def _next(url: URL, location: str) -> URL:
    try:
        further = url.join(URL(location, encoded=True)) if location else url
        known = further.scheme in {"http", "https"} and bool(further.host)
    except ValueError:
        known = False
    if not location or not known:
        raise Missing("it is redirected to what is no address")
    if url.scheme == "https" and further.scheme == "http":
        raise Missing(f"it is redirected from https to http ({further.host})")
    return further


def _continues(answer: aiohttp.ClientResponse, offset: int) -> bool:
    """Whether the server has not misunderstood what part was asked for; many do not know parts at all, and send the whole."""
    if answer.status == HTTPStatus.PARTIAL_CONTENT:
        found = _RANGE.fullmatch(answer.headers.get("Content-Range", ""))
        return found is not None and int(found[1]) == offset
    return answer.status != HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE


def _incoming(answer: aiohttp.ClientResponse, offset: int) -> Incoming:
    """Raises Transient or Missing where the answer is not what was asked for."""
    content, status, length = answer.content.iter_any(), answer.status, answer.content_length
    if status == HTTPStatus.OK:
        return Incoming(0, length, content)
    if status == HTTPStatus.PARTIAL_CONTENT and offset:
        return Incoming(offset, None if length is None else offset + length, content)
    said = f"the server answered {status} {quoted(answer.reason or '')}".rstrip()
    raise (Transient if status >= 500 or status in _LATER else Missing)(said)

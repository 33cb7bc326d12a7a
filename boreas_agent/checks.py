"""Asks a port over HTTP or TCP, on the event loop, once.

A probe opens a connection of its own, so that it also finds out whether the app still takes any, and hangs up. With
hundreds of them a second the cost of each is what counts: this takes half the time of the HTTP client that the agent
uses elsewhere, and needs no more of HTTP than the status, and the first of the body where the status is wrong.
"""

from __future__ import annotations

import asyncio
import errno
import os
import re
import socket
import ssl
from collections.abc import Awaitable
from functools import cache

from boreas_agent import __version__
from boreas_agent.probe_spec import HttpCheck, TcpCheck
from boreas_agent.probing import Result

MOST_BYTES = 10 * 1024
"""Of an answer; what is longer is not waited for (Kubernetes reads as much)."""
_SHOWN = 200
_STATUS = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2})(?: [^\r\n]*)?\r?\n")
_LENGTH = re.compile(rb"\ncontent-length: *([0-9]{1,18})[ \t]*\r?\n", re.IGNORECASE)
_CHUNKED = re.compile(rb"\ntransfer-encoding:[^\r\n]*chunked", re.IGNORECASE)
_NO_BODY = (204, 304)
_OUR_OWN = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EADDRNOTAVAIL)
"""The agent has run out of something: that says nothing about the app."""


async def ask(address: str, check: HttpCheck | TcpCheck, seconds: float) -> Result:
    """Whether ``address`` answers as ``check`` wants it to, within ``seconds`` for all of it."""
    if not address:
        return Result(False, f"cannot reach port {check.port}: the instance has no network address of its own; use an exec probe")
    where = f":{check.port}" + (_shown_path(check) if isinstance(check, HttpCheck) else "")
    asking: Awaitable[Result] = _http(address, check, where) if isinstance(check, HttpCheck) else _tcp(address, check)
    try:
        async with asyncio.timeout(seconds):
            return await asking
    except TimeoutError:
        return Result(False, f"no answer from {where} within {seconds:g} s")
    except ssl.SSLError as error:
        return Result(False, f"cannot speak TLS with {where}: {error.reason or error}")
    except OSError as error:
        ours = error.errno in _OUR_OWN
        return Result(None if ours else False, f"cannot connect to {where}: {_reason(error)}")


def _shown_path(check: HttpCheck) -> str:
    """A query may hold a token."""
    return check.path.partition("?")[0]


async def _connected(address: str, port: int) -> socket.socket:
    """On one machine a connection is mostly there by the time one has asked: asking again is cheaper than to wait to be told."""
    sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        code = sock.connect_ex((address, port))
        if code == errno.EINPROGRESS:
            code = sock.connect_ex((address, port))
        if code in (errno.EINPROGRESS, errno.EALREADY):
            await asyncio.get_running_loop().sock_connect(sock, (address, port))
        elif code not in (0, errno.EISCONN):
            raise OSError(code, os.strerror(code))
    except BaseException:
        sock.close()
        raise
    return sock


async def _tcp(address: str, check: TcpCheck) -> Result:
    (await _connected(address, check.port)).close()
    return Result(True)


async def _http(address: str, check: HttpCheck, where: str) -> Result:
    loop = asyncio.get_running_loop()
    sock = await _connected(address, check.port)
    exchange = _Exchange(_request(address, check), loop.create_future())
    try:
        if check.scheme == "https":
            await loop.create_connection(lambda: exchange, sock=sock, ssl=_unverified(), server_hostname=_server_name(address, check))
        else:
            await loop.create_connection(lambda: exchange, sock=sock)
        status, body = await exchange.answered
    finally:
        exchange.hang_up(sock)
    if status is None:
        return Result(False, f"no HTTP answer from {where}: {_words(body) or exchange.lost}")
    if check.expects(status):
        return Result(True)
    words = _words(body)
    return Result(False, f"HTTP {status} from {where}" + (f": {words}" if words else ""))


def _request(address: str, check: HttpCheck) -> bytes:
    host = f"[{address}]" if ":" in address else address
    headers = {"Host": f"{host}:{check.port}", "User-Agent": f"boreas-agent/{__version__} probe", "Accept": "*/*"}
    given = {name.lower() for name in check.headers}
    headers = {name: value for name, value in headers.items() if name.lower() not in given} | check.headers
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"GET {check.path} HTTP/1.1\r\n{lines}Connection: close\r\n\r\n".encode("ascii")


def _server_name(address: str, check: HttpCheck) -> str:
    named = next((value for name, value in check.headers.items() if name.lower() == "host"), "")
    return named.partition(":")[0].strip() or address


@cache
def _unverified() -> ssl.SSLContext:
    """The name and the certificate of something that is asked by its address prove nothing; Kubernetes does the same."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _reason(error: OSError) -> str:
    return (os.strerror(error.errno) if error.errno else str(error)).lower()


def _words(body: bytes) -> str:
    """The beginning of what was answered, on one line, without what would deceive a reader in a terminal."""
    text = " ".join(body[: _SHOWN * 4].decode("utf-8", "replace").split())
    return "".join(char if char.isprintable() else "�" for char in text)[:_SHOWN]


class _Exchange(asyncio.Protocol):
    """One request and the answer to it: ``answered`` becomes the status (None: it was no HTTP) and the beginning of the body."""

    def __init__(self, request: bytes, answered: asyncio.Future[tuple[int | None, bytes]]) -> None:
        self.answered = answered
        self.lost = "the connection was closed"
        self._request = request
        self._received = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._received += data
        self._look(ended=len(self._received) > MOST_BYTES)

    def connection_lost(self, exc: Exception | None) -> None:
        if isinstance(exc, OSError):
            self.lost = _reason(exc)
        self._look(ended=True)

    def hang_up(self, sock: socket.socket) -> None:
        """Without waiting for the other side."""
        if self._transport is not None:
            self._transport.abort()
        else:
            sock.close()

    def _look(self, *, ended: bool) -> None:
        if self.answered.done():
            return
        answer = _understood(self._received, ended=ended)
        if answer is not None:
            self.answered.set_result(answer)


def _understood(received: bytes, *, ended: bool) -> tuple[int | None, bytes] | None:
    """Status and body, once there is enough of them; None where there is more to come."""
    head, separator, body = _split(received)
    found = _STATUS.match(received)
    if not separator or found is None:
        return (int(found[1]) if found else None, body or received) if ended or (found is None and len(received) > 16) else None
    status = int(found[1])
    if status < 200:
        return _understood(body, ended=ended)
    length = _LENGTH.search(head + b"\n")
    whole = status in _NO_BODY or (length is not None and len(body) >= int(length[1])) or (length is None and body.endswith(b"0\r\n\r\n"))
    return (status, _first_chunk(body) if _CHUNKED.search(head) else body) if whole or ended else None


def _first_chunk(body: bytes) -> bytes:
    size, _, rest = body.partition(b"\r\n")
    try:
        return rest[: int(size.partition(b";")[0], 16)]
    except ValueError:
        return body


def _split(received: bytes) -> tuple[bytes, bytes, bytes]:
    head, separator, body = received.partition(b"\r\n\r\n")
    return (head, separator, body) if separator else received.partition(b"\n\n")

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
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from functools import cache, partial

from boreas_agent import __version__
from boreas_agent.probing import Result
from boreas_agent.spec.probes import HttpCheck, TcpCheck

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
        if sock.connect_ex((address, port)) != 0 and sock.connect_ex((address, port)) not in (0, errno.EISCONN):
            await asyncio.get_running_loop().sock_connect(sock, (address, port))  # which also says why there is none
        _refuse_itself(sock, port)
    except BaseException:
        sock.close()
        raise
    return sock


def _refuse_itself(sock: socket.socket, port: int) -> None:
    """Where nobody listens the kernel may give a connection the very port that it goes to as its own."""
    if (ours := sock.getsockname())[1] == port and ours == sock.getpeername():
        raise ConnectionRefusedError(errno.ECONNREFUSED, "nobody listens")


async def _tcp(address: str, check: TcpCheck) -> Result:
    (await _connected(address, check.port)).close()
    return Result(True)


async def _http(address: str, check: HttpCheck, where: str) -> Result:
    with await _connected(address, check.port) as sock:
        request = _request(address, check)
        if check.scheme == "https":
            async with aclosing(_tls(sock, request, _server_name(address, check))) as chunks:
                status, body, lost = await _answer(chunks.__anext__)
        else:
            loop = asyncio.get_running_loop()
            await loop.sock_sendall(sock, request)
            status, body, lost = await _answer(partial(loop.sock_recv, sock, MOST_BYTES))
    words = _words(body)
    if status is None:
        return Result(False, f"no HTTP answer from {where}: {words or lost}")
    if check.expects(status):
        return Result(True)
    return Result(False, f"HTTP {status} from {where}" + (f": {words}" if words else ""))


async def _tls(sock: socket.socket, request: bytes, name: str) -> AsyncGenerator[bytes, None]:
    reader, writer = await asyncio.open_connection(sock=sock, ssl=_unverified(), server_hostname=name)
    try:
        writer.write(request)
        while True:
            yield await reader.read(MOST_BYTES)
    finally:
        writer.transport.abort()


async def _answer(more: Callable[[], Awaitable[bytes]]) -> tuple[int | None, bytes, str]:
    """The status (None: it was no HTTP), the beginning of the body, and why there is no more where the connection was lost."""
    received, lost = b"", "the connection was closed"
    try:
        while True:
            chunk = await more()
            received += chunk
            answer = _understood(received, ended=not chunk or len(received) > MOST_BYTES)
            if answer is not None:
                return *answer, lost
    except ConnectionError as error:
        lost = _reason(error)
    return *(_understood(received, ended=True) or (None, b"")), lost


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

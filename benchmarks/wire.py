"""HTTP/1.1 over one kept-alive connection, with as little between us and the socket as can be.

A general client costs as much per request as the server that is to be measured, and its cost would flatter every ratio.
"""

from __future__ import annotations

import json
import re
import socket
from types import TracebackType
from typing import Any, Self

DEADLINE_SECONDS = 30.0
_LENGTH = re.compile(rb"(?i)\r\ncontent-length: *(\d+)\r\n")


class Connection:
    """A connection that is used for one request at a time."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_SECONDS)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def fileno(self) -> int:
        """For a selector: readable once the answer comes."""
        return self._socket.fileno()

    def send(self, request: bytes) -> None:
        """Hands the whole request to the kernel in one call."""
        self._socket.sendall(request)

    def receive(self) -> tuple[int, bytes]:
        """The status and the body of the answer."""
        data = b""
        while (end := data.find(b"\r\n\r\n")) < 0:
            data += self._more()
        length = _LENGTH.search(data, 0, end + 2)
        if length is None:
            raise RuntimeError(f"cannot read an answer without Content-Length: {data[:end]!r}")
        whole = end + 4 + int(length[1])
        while len(data) < whole:
            data += self._more()
        return int(data[9:12]), data[end + 4 :]

    def ask(self, method: str, path: str, body: bytes = b"") -> tuple[int, Any]:
        """One request and its decoded answer."""
        self.send(encode(method, path, body))
        status, answer = self.receive()
        return status, json.loads(answer)

    def _more(self) -> bytes:
        received = self._socket.recv(65536)
        if not received:
            raise ConnectionError("the server closed the connection before it had answered")
        return received

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._socket.close()


def encode(method: str, path: str, body: bytes = b"") -> bytes:
    """The request as it goes over the wire."""
    head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode("ascii") + body

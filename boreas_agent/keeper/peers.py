"""The keeper's end of a connection to an agent."""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

MAX_REQUEST = 8 * 1024 * 1024
MAX_BACKLOG = 1024 * 1024  # bytes of notices that a peer may leave unread


class Lost(Exception):
    """The connection is of no more use."""


class Peer:
    """A connected agent."""

    __slots__ = ("inbox", "outbox", "sock")

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.inbox = bytearray()
        self.outbox = bytearray()

    @property
    def allowed(self) -> bool:
        """The folder keeps others out; this holds even where somebody opened it."""
        _, uid, _ = struct.unpack("3i", self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        return uid in {0, os.getuid()}

    def gone(self) -> bool:
        """It has closed its end: what it asked for, it no longer waits for."""
        if self.sock.fileno() < 0:
            return True
        poll = select.poll()
        poll.register(self.sock, select.POLLRDHUP)
        return bool(poll.poll(0))

    def receive(self) -> list[bytes]:
        """The requests that are complete, a line each; raises Lost."""
        try:
            data = self.sock.recv(65536)
        except BlockingIOError:
            return []
        except OSError as error:
            raise Lost from error
        self.inbox += data
        if not data or len(self.inbox) > MAX_REQUEST:
            raise Lost
        *lines, rest = self.inbox.split(b"\n")
        self.inbox = rest
        return [bytes(line) for line in lines]

    def send(self, message: Mapping[str, Any]) -> None:
        """Send it, or as much as there is room for; raises Lost."""
        self.outbox += json.dumps(message).encode() + b"\n"
        self.flush()

    def flush(self) -> None:
        """Send what is left; raises Lost."""
        try:
            with contextlib.suppress(BlockingIOError):
                del self.outbox[: self.sock.send(self.outbox)]
        except OSError as error:
            raise Lost from error
        if len(self.outbox) > MAX_BACKLOG:
            raise Lost

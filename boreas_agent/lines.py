"""JSON objects, a line each, over a connection to a helper program."""

from __future__ import annotations

import asyncio
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from boreas_agent import jsontext


class Lines(asyncio.Protocol, ABC):
    """The agent's end; whoever derives from it says what becomes of what is ``heard``. ``transport`` None: nobody is there."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Of asyncio."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """Of asyncio."""
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        for line in lines:
            self.heard(json.loads(line))

    def connection_lost(self, exc: Exception | None) -> None:
        """Of asyncio."""
        self.transport = None

    @abstractmethod
    def heard(self, said: Mapping[str, Any]) -> None:
        """One object has come."""

    def send(self, message: Mapping[str, Any]) -> None:
        """Nothing is sent where there is nobody any more."""
        if self.transport is not None:
            self.transport.write(jsontext.compact(message).encode() + b"\n")

"""HTTP to the agent, with the standard library alone: imported in a few milliseconds, and all that is needed."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit

from boreas_agent import __version__
from boreas_agent.cli.tls import TlsFiles, why
from boreas_agent.errors import BoreasError

SECONDS = 30.0
"""How long an answer may take."""


class CommandFailed(BoreasError):
    """The command could not do what it was asked to; the message is what the user sees (exit status 1)."""


class Unreachable(CommandFailed):
    """Nobody answers, or somebody who is not an agent: it may do so later."""


class Refused(CommandFailed):
    """The agent answered no. The message has one line for every field that is wrong."""

    def __init__(self, status: int, body: dict[str, Any]) -> None:
        self.status = status
        faults = [
            f"  {fault.get('field', '')}: {fault.get('message', '')}" for fault in body.get("errors") or () if isinstance(fault, dict)
        ]
        super().__init__("\n".join([str(body.get("message") or f"the agent answered {status}"), *faults]))


class Agent(NamedTuple):
    """An agent at a URL."""

    url: str
    tls: ssl.SSLContext | None
    host: str
    port: int | None
    prefix: str
    token: str

    @classmethod
    def at(cls, url: str, token: str, files: TlsFiles | None = None) -> Agent:
        """Raises CommandFailed where ``url`` isn't one, TlsFailed where one of ``files`` cannot be used."""
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            parts, port = urlsplit(""), None
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise CommandFailed(f"cannot use {url!r} as the agent's address: it must look like http://127.0.0.1:8081 (--url or BOREAS_URL)")
        if not token.isprintable():
            raise CommandFailed("cannot send the token: it contains a line break or another control character (--token or BOREAS_TOKEN)")
        tls = (files or TlsFiles()).context() if parts.scheme == "https" else None
        return cls(url, tls, parts.hostname, port, parts.path.rstrip("/"), token)

    def status(self, app: str) -> dict[str, Any]:
        """The status object of one app. Raises Refused, Unreachable."""
        return self.call("GET", f"/v1/status/{quote(app, safe='')}")

    def change(self, app: str, verb: str, body: dict[str, Any]) -> dict[str, Any]:
        """``restart``, ``rollback``, ``hold`` or ``release`` an app. Raises Refused, Unreachable."""
        return self.call("POST", f"/v1/apps/{quote(app, safe='')}/{verb}", body)

    def call(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        """The JSON object that the agent answers with. Raises Refused, Unreachable."""
        headers = {"Accept": "application/json"}
        if method != "GET":
            headers["Content-Type"] = "application/json"
        with self._answer(method, path, None if body is None else json.dumps(body, allow_nan=False).encode(), headers) as answer:
            return self._understood(answer.status, answer.read())

    def lines(self, path: str, headers: dict[str, str], silence: float | None = SECONDS) -> Iterator[bytes]:
        """The lines of an answer as they come, without their ends. Raises Refused, Unreachable: also where it breaks off in the middle.

        ``silence``: seconds after which an answer in which nothing comes counts as broken off; None: it may be silent for ever.
        """
        with self._answer("GET", path, None, headers, silence) as answer:
            if answer.status != http.client.OK:
                self._understood(answer.status, answer.read())
            rest = b""
            while piece := answer.read1(65536):  # readline would take a connection that breaks off for the end
                *lines, rest = (rest + piece).split(b"\n")
                yield from lines
            if rest:
                yield rest

    @contextmanager
    def _answer(
        self, method: str, path: str, body: bytes | None, headers: dict[str, str], silence: float | None = SECONDS
    ) -> Iterator[http.client.HTTPResponse]:
        headers["User-Agent"] = f"boreas-agent/{__version__}"
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        connection = self._connection()
        try:
            connection.request(method, self.prefix + path, body, headers)
            connected = connection.sock  # which an answer that ends with its connection takes over
            answer = connection.getresponse()
            connected.settimeout(silence)
            if silence is None:
                _notice_death(connected)
            yield answer
        except (OSError, http.client.HTTPException, UnicodeError) as error:
            if isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError):
                raise CommandFailed(f"cannot talk to the agent at {self.url}: {why(error, self.host)}") from None
            raise Unreachable(
                f"cannot reach the agent at {self.url}: {_why(error)}; is it running there? (--url or BOREAS_URL names another)"
            ) from None
        finally:
            connection.close()

    def _connection(self) -> http.client.HTTPConnection:
        if self.tls is None:
            return http.client.HTTPConnection(self.host, self.port, timeout=SECONDS)
        return http.client.HTTPSConnection(self.host, self.port, timeout=SECONDS, context=self.tls)

    def _understood(self, status: int, body: bytes) -> dict[str, Any]:
        try:
            data = json.loads(body)
        except ValueError:
            data = None
        if not isinstance(data, dict):
            raise Unreachable(f"cannot understand what answers at {self.url}: status {status} and no JSON object; is it a boreas-agent?")
        if status != http.client.OK:
            raise Refused(status, data)
        return data


def _notice_death(connected: socket.socket) -> None:
    """A machine that lost its power says nothing, too: the kernel asks it every half a minute."""
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in ((socket.TCP_KEEPIDLE, 30), (socket.TCP_KEEPINTVL, 10), (socket.TCP_KEEPCNT, 3)):
        connected.setsockopt(socket.IPPROTO_TCP, option, value)


def _why(error: Exception) -> str:
    match error:
        case ConnectionRefusedError():
            return "connection refused"
        case TimeoutError():
            return f"no answer within {SECONDS:g} s"
        case socket.gaierror():
            return "its name cannot be resolved"
        case OSError() if error.strerror:
            return error.strerror.lower()
        case _:
            return str(error) or type(error).__name__

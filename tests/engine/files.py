"""A server of files over loopback that counts what it is asked for, and can be slow, cut off, wrong or silent."""

from __future__ import annotations

import hashlib
import http.server
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

CHUNK = 64 * 1024


@dataclass(eq=False)
class Served:
    """One file. ``hold_at``: so many bytes are sent, and the rest once ``release`` is set; ``cut_at``: then the line is cut, once.
    Without ``length`` nobody knows how much is to come."""

    content: bytes
    status: int = 200
    hold_at: int | None = None
    cut_at: int | None = None
    ranges: bool = True
    length: bool = True
    location: str = ""
    release: threading.Event = field(default_factory=threading.Event)

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()


class FileServer:
    """``asked`` are the requests, as (path, Range, headers)."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.files: dict[str, Served] = {}
        self.asked: list[tuple[str, str | None, dict[str, str]]] = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                with suppress(ConnectionError):
                    outer.answer(self)

            def log_message(self, *_: Any) -> None:
                """Nothing."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        if tls:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def close(self) -> None:
        for served in self.files.values():
            served.release.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def serve(self, name: str, content: bytes, **how: Any) -> dict[str, Any]:
        """Serve it, and the artifact that asks for it."""
        served = self.files[f"/{name}"] = Served(content, **how)
        return {"url": self.url(name), "sha256": served.sha256}

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.port}/{name}"

    def times(self, name: str) -> int:
        """How often it was asked for."""
        return sum(path.partition("?")[0] == f"/{name}" for path, _, _ in self.asked)

    def answer(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        path = handler.path.partition("?")[0]
        wanted = handler.headers.get("Range")
        self.asked.append((handler.path, wanted, {name.lower(): value for name, value in handler.headers.items()}))
        served = self.files.get(path)
        if served is None or served.status != 200:
            handler.send_response(served.status if served else 404)
            if served and served.location:
                handler.send_header("Location", served.location)
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and served.ranges else 0
        total = len(served.content)
        if start >= total > 0:
            handler.send_response(416)
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        handler.send_response(206 if start else 200)
        if start:
            handler.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        if served.length:
            handler.send_header("Content-Length", str(total - start))
        else:
            handler.send_header("Connection", "close")
        handler.end_headers()
        self._send(handler, served, start)

    def _send(self, handler: http.server.BaseHTTPRequestHandler, served: Served, start: int) -> None:
        at = start
        while at < len(served.content):
            stop = len(served.content)
            if served.cut_at is not None and at <= served.cut_at:
                stop = served.cut_at
            if served.hold_at is not None and at <= served.hold_at and not served.release.is_set():
                stop = min(stop, served.hold_at)
            if at == stop == served.cut_at:
                served.cut_at = None
                handler.close_connection = True
                handler.connection.close()
                return
            if at == stop:
                served.release.wait(60)
                continue
            chunk = served.content[at : min(stop, at + CHUNK)]
            handler.wfile.write(chunk)
            at += len(chunk)


@contextmanager
def file_server(tls: ssl.SSLContext | None = None) -> Iterator[FileServer]:
    """A running one."""
    server = FileServer(tls)
    try:
        yield server
    finally:
        server.close()

"""A proxy before the engine's socket (or a registry's port) that delays, cuts, loses, corrupts and fails chosen calls.

It reads requests, and makes every connection carry exactly one, so that a rule can be told from the request line; answers pass
unread. It runs on a loop in a thread of its own, because the code under test has the main thread's.
"""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import Awaitable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Address = Path | tuple[str, int]
_TLS = b"\x16"
"""What a TLS handshake begins with: engines try a registry with TLS first."""
Effect = Literal["hang", "stall", "delay", "cut", "lose-reply", "fail", "corrupt"]


@dataclass
class Rule:
    """What happens to the next ``times`` requests (all: None) whose ``METHOD /path?query`` matches ``pattern``."""

    pattern: str
    effect: Effect
    times: int | None = None
    seconds: float = 0.0
    status: int = 500
    size: int = 0
    message: str = ""
    hits: int = 0
    released: asyncio.Event = field(default_factory=asyncio.Event)

    def takes(self, request: str) -> bool:
        """Whether the rule is for this request; counts it where it is."""
        if (self.times is not None and self.hits >= self.times) or not re.search(self.pattern, request):
            return False
        self.hits += 1
        return True


class Proxy:
    """Listens on ``listen`` for ``upstream``. ``requests`` are the request lines so far, without the version."""

    def __init__(self, listen: Address, upstream: Address) -> None:
        self.listen = listen
        self.upstream = upstream
        self.requests: list[str] = []
        self._rules: list[Rule] = []
        self._open: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="test-proxy", daemon=True)
        self._thread.start()
        self._server: asyncio.Server = self._do(self._serve())

    @property
    def socket(self) -> str:
        """The path of the proxy's socket."""
        return str(self.listen)

    @property
    def port(self) -> int:
        """The port of a proxy on TCP."""
        return int(self._server.sockets[0].getsockname()[1])

    @property
    def open_connections(self) -> int:
        """How many requests are under way."""
        return len(self._open)

    def hang(self, pattern: str, times: int | None = None) -> Rule:
        """Take the request and do nothing until the rule is released."""
        return self._add(Rule(pattern, "hang", times))

    def stall(self, pattern: str, size: int, times: int | None = None) -> Rule:
        """Forward the request, pass on about ``size`` bytes of the answer, and then nothing until the rule is released."""
        return self._add(Rule(pattern, "stall", times, size=size))

    def delay(self, pattern: str, seconds: float, times: int | None = None) -> Rule:
        """Forward the request only after a while."""
        return self._add(Rule(pattern, "delay", times, seconds))

    def cut(self, pattern: str, times: int | None = None) -> Rule:
        """Close the connection instead of forwarding the request."""
        return self._add(Rule(pattern, "cut", times))

    def lose_reply(self, pattern: str, times: int | None = 1) -> Rule:
        """Let the request have its effect, and close the connection instead of answering."""
        return self._add(Rule(pattern, "lose-reply", times))

    def corrupt(self, pattern: str, times: int | None = None) -> Rule:
        """Forward the request, and change what of the answer comes after its beginning."""
        return self._add(Rule(pattern, "corrupt", times))

    def fail(self, pattern: str, status: int, message: str, times: int | None = None) -> Rule:
        """Answer with an error instead of forwarding the request."""
        return self._add(Rule(pattern, "fail", times, status=status, message=message))

    def release(self, rule: Rule) -> None:
        """Let what hangs go on; the rule is over."""
        self._rules.remove(rule)
        self._loop.call_soon_threadsafe(rule.released.set)

    def cut_open(self) -> None:
        """Cut every connection that is open now."""
        self._do(self._cut_open())

    def count(self, pattern: str) -> int:
        """How many requests so far match."""
        return sum(1 for request in list(self.requests) if re.search(pattern, request))

    def close(self) -> None:
        """Stop listening, cut everything, end the thread."""
        self._do(self._shut())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()
        if isinstance(self.listen, Path):
            self.listen.unlink(missing_ok=True)

    def _add(self, rule: Rule) -> Rule:
        self._rules.insert(0, rule)
        return rule

    def _do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _serve(self) -> asyncio.Server:
        if isinstance(self.listen, Path):
            return await asyncio.start_unix_server(self._accept, self.listen)
        return await asyncio.start_server(self._accept, *self.listen)

    async def _shut(self) -> None:
        self._server.close()
        await self._cut_open()

    async def _cut_open(self) -> None:
        tasks = list(self._open)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = self._loop.create_task(self._connection(reader, writer))
        self._open.add(task)
        task.add_done_callback(self._open.discard)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(OSError, asyncio.IncompleteReadError):
                line, request = await _read_request(reader)
                self.requests.append(line)
                rule = next((rule for rule in self._rules if rule.takes(line)), None)
                await self._handle(rule, request, reader, writer)
        finally:
            writer.transport.abort() if writer.transport.get_write_buffer_size() == 0 else writer.close()

    async def _handle(self, rule: Rule | None, request: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        match rule.effect if rule else None:
            case "cut":
                return
            case "fail":
                assert rule is not None
                body = json.dumps({"message": rule.message})
                head = (
                    f"HTTP/1.1 {rule.status} Chosen",
                    "Content-Type: application/json",
                    f"Content-Length: {len(body)}",
                    "Connection: close",
                )
                await _send(writer, "\r\n".join([*head, "", body]).encode())
                return
            case "hang" | "delay":
                assert rule is not None
                if not await _unless_closed(reader, rule.released.wait(), rule.seconds if rule.effect == "delay" else None):
                    return
        await self._forward(rule, request, reader, writer)

    async def _forward(self, rule: Rule | None, request: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if isinstance(self.upstream, Path):
            up_reader, up_writer = await asyncio.open_unix_connection(self.upstream)
        else:
            up_reader, up_writer = await asyncio.open_connection(*self.upstream)
        try:
            await _send(up_writer, request)
            await _unless_closed(reader, _answer(rule, up_reader, writer), None)
        finally:
            up_writer.transport.abort()


async def _answer(rule: Rule | None, upstream: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    passed = 0
    while chunk := await upstream.read(65536):
        if rule is not None and rule.effect == "stall" and passed + len(chunk) > rule.size:
            await _send(writer, chunk[: rule.size - passed])
            await rule.released.wait()
            chunk, passed = chunk[rule.size - passed :], rule.size
        if rule is None or rule.effect != "lose-reply":
            await _send(writer, chunk[::-1] if passed and rule is not None and rule.effect == "corrupt" else chunk)
        passed += len(chunk)


async def _read_request(reader: asyncio.StreamReader) -> tuple[str, bytes]:
    """``METHOD /path?query``, and the whole request with ``Connection: close``."""
    begin = await reader.readexactly(1)
    if begin == _TLS:
        raise ConnectionError("no TLS here")
    head = (begin + await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *fields = head.rstrip("\r\n").split("\r\n")
    kept = [name for name in fields if not name.lower().startswith("connection:")]
    length = next((int(name.partition(":")[2]) for name in kept if name.lower().startswith("content-length:")), 0)
    body = await reader.readexactly(length)
    return first.rpartition(" ")[0], "\r\n".join([first, *kept, "Connection: close", "", ""]).encode("latin-1") + body


async def _send(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(data)
    await writer.drain()


async def _unless_closed(reader: asyncio.StreamReader, work: Awaitable[Any], seconds: float | None) -> bool:
    """Wait for ``work``, at most ``seconds``; False where the client hung up meanwhile."""
    working, closed = asyncio.ensure_future(work), asyncio.ensure_future(_closed(reader))
    try:
        await asyncio.wait({working, closed}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            working.result()
        return not closed.done()
    finally:
        for task in (working, closed):
            task.cancel()
        await asyncio.gather(working, closed, return_exceptions=True)


async def _closed(reader: asyncio.StreamReader) -> None:
    with suppress(OSError):
        while await reader.read(65536):
            pass

"""The agent's end of the fetcher (see ``boreas_agent.fetcher``).

It is started for the first download, and ends when there has been none for a while; it does not outlive the agent.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from msgspec.structs import asdict

from boreas_agent.artifacts.cache import NoRoom
from boreas_agent.artifacts.limits import InThread, Limits
from boreas_agent.errors import BoreasError, Missing, Terminal, Transient
from boreas_agent.lines import Lines
from boreas_agent.spec import Artifact

LINGER_SECONDS = 60.0
END_SECONDS = 10.0
"""How long it may take to give up what it does; what a dead disk holds is then ended by force."""
_KINDS: Mapping[str, type[BoreasError]] = {kind.__name__: kind for kind in (Missing, Terminal, Transient, NoRoom)}

_GONE = "the process that fetches it has ended; it is started again"
_SILENT = "the process that fetches it does not answer; it is started again"
_log = logging.getLogger(__name__)

Hear = Callable[[int, int | None], None]


class _Line(Lines):
    """The connection to one fetcher."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: dict[int, tuple[asyncio.Future[Mapping[str, Any]], Hear]] = {}

    def heard(self, said: Mapping[str, Any]) -> None:
        answer, hear = self.asked.get(said["id"], (None, None))
        if answer is None or hear is None or answer.done():
            return
        if "done" in said:
            hear(said["done"], said["total"])
        else:
            answer.set_result(said)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        for answer, _ in self.asked.values():
            if not answer.done():
                answer.set_result({"error": "Transient", "message": _GONE})


class Fetching:
    """Downloads into one cache."""

    def __init__(self, cache: Path, limits: Limits, in_thread: InThread) -> None:
        self._request = json.dumps({"cache": str(cache), "limits": asdict(limits)})
        self._seconds = limits.seconds + END_SECONDS
        self._in_thread = in_thread
        self._starting = asyncio.Lock()
        self._line: _Line | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._resting: asyncio.Task[None] | None = None
        self._left = False
        self._ids = itertools.count(1)

    def leave(self) -> None:
        """Nothing begins any more, and what is given up from now on is kept."""
        self._left = True

    async def close(self) -> None:
        """Give every download up; what is here is kept."""
        self.leave()
        if self._resting is not None:
            self._resting.cancel()
        async with self._starting:
            await self._end()

    async def download(self, artifact: Artifact, key: str, hear: Hear) -> str:
        """Have it in the cache, verified; its digest. Whoever gives up keeps nothing of it. Raises Transient, Missing, Terminal."""
        line = await self._connected()
        number, answer = next(self._ids), asyncio.get_running_loop().create_future()
        line.asked[number] = answer, hear
        line.send({"id": number, "key": key, "artifact": artifact.model_dump(mode="json", exclude_defaults=True)})
        try:
            await asyncio.wait({answer}, timeout=self._seconds)
        finally:
            try:
                if not answer.done() and not self._left:
                    await self._give_up(line, number, answer)
            finally:
                del line.asked[number]
                self._rest(line)
        if self._left:
            raise asyncio.CancelledError
        return _digest(answer.result() if answer.done() else {"error": "Transient", "message": _SILENT})

    @staticmethod
    async def _give_up(line: _Line, number: int, answer: asyncio.Future[Mapping[str, Any]]) -> None:
        """One that does not even answer to this is of no use to anybody: the next download has another one."""
        line.send({"cancel": number})
        await asyncio.wait({answer}, timeout=END_SECONDS)
        if not answer.done() and line.transport is not None:
            _log.warning("the process that fetches artifacts does not answer; it is ended")
            line.transport.abort()

    def _rest(self, line: _Line) -> None:
        """Where nothing is asked of it any more it goes after a while."""
        if not line.asked and line is self._line and not self._left:
            if self._resting is not None:
                self._resting.cancel()
            self._resting = asyncio.get_running_loop().create_task(self._go(line))

    async def _go(self, line: _Line) -> None:
        await asyncio.sleep(LINGER_SECONDS)
        async with self._starting:
            if line is self._line and not line.asked:
                await self._end()

    async def _connected(self) -> _Line:
        async with self._starting:
            if self._left:
                raise asyncio.CancelledError
            if self._line is not None and self._line.transport is not None and not self._line.transport.is_closing():
                return self._line
            await self._end()
            ours, theirs = socket.socketpair()
            try:
                self._process = await self._in_thread(_start, theirs, self._request)
                ours.setblocking(False)
                line = _Line()
                await asyncio.get_running_loop().create_unix_connection(lambda: line, sock=ours)
            except OSError as error:
                ours.close()
                raise Transient(f"the process that fetches it cannot be started: {error.strerror}") from error
            except BaseException:
                ours.close()
                raise
            self._line = line
            return line

    async def _end(self) -> None:
        line, self._line = self._line, None
        if line is not None and line.transport is not None:
            line.transport.abort()
        process, self._process = self._process, None
        if process is not None and (status := await self._in_thread(_wait, process)):
            _log.warning("the process that fetches artifacts ended", extra={"status": status})


def _digest(answer: Mapping[str, Any]) -> str:
    if "digest" in answer:
        return str(answer["digest"])
    if "cancelled" in answer:
        raise Transient("it was not here in time")
    raise _KINDS.get(answer["error"], Transient)(answer["message"])


def _start(theirs: socket.socket, request: str) -> subprocess.Popen[bytes]:
    """Its environment is the agent's, for that may say which authorities are trusted."""
    command = [sys.executable, "-I", "-X", "utf8", "-m", "boreas_agent.fetcher", request]
    with theirs:
        return subprocess.Popen(
            command,
            stdin=theirs.fileno(),
            stdout=subprocess.DEVNULL,
            cwd="/",
            env=dict(os.environ),
            start_new_session=True,
        )


def _wait(process: subprocess.Popen[bytes]) -> int:
    """How it ended, as of ``subprocess``."""
    with suppress(subprocess.TimeoutExpired):
        process.wait(END_SECONDS)
    process.kill()
    return process.wait()

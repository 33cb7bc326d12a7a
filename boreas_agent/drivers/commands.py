"""The agent's end of the runner: commands beside process instances (see ``boreas_agent.runner``).

The runner is started for the first command, and again for the next one after it has gone; what it was running then
has ended with it, and how is not known.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from boreas_agent.drivers.keeper_client import InThread
from boreas_agent.drivers.runs import name_of
from boreas_agent.errors import Unavailable
from boreas_agent.lines import Lines
from boreas_agent.model import Executed

_PROGRAM = Path(__file__).parent.parent / "runner" / "__main__.py"
_OWN_SECONDS = 5.0
"""What the runner may take beyond a command's own time: the machine may be busy, a killed process slow to disappear."""
_START_AGAIN_SECONDS = 1.0
_log = logging.getLogger(__name__)


class _Line(Lines):
    """The connection to one runner."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: dict[int, asyncio.Future[Mapping[str, Any]]] = {}

    def heard(self, said: Mapping[str, Any]) -> None:
        asked = self.asked.pop(said["id"], None)
        if asked is not None and not asked.done():
            asked.set_result(said)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        for asked in self.asked.values():
            asked.cancel()
        self.asked.clear()


class Commands:
    """Runs commands, each of them in time."""

    def __init__(self, in_thread: InThread) -> None:
        self._in_thread = in_thread
        self._starting = asyncio.Lock()
        self._line: _Line | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._started = float("-inf")
        self._ids = itertools.count(1)

    async def close(self) -> None:
        """End the runner, and with it whatever it runs."""
        async with self._starting:
            await self._end()

    async def run(self, request: Mapping[str, Any], seconds: float) -> Executed:
        """How the command ended. Raises Unavailable where nobody knows."""
        line = await self._connected()
        number = next(self._ids)
        asked = line.asked[number] = asyncio.get_running_loop().create_future()
        line.send({**request, "id": number, "seconds": seconds})
        try:
            await asyncio.wait((asked,), timeout=seconds + _OWN_SECONDS)
        finally:
            line.asked.pop(number, None)
            if not asked.done():
                line.send({"cancel": number})
        if not asked.done() or asked.cancelled():
            asked.cancel()
            raise Unavailable("cannot run commands beside processes: their runner has gone, or does not answer")
        return _executed(asked.result(), seconds)

    async def _connected(self) -> _Line:
        async with self._starting:
            if self._line is not None and self._line.transport is not None:
                return self._line
            await self._end()
            loop = asyncio.get_running_loop()
            if loop.time() - self._started < _START_AGAIN_SECONDS:
                raise Unavailable("cannot run commands beside processes: their runner has just gone; it is started again")
            self._started = loop.time()
            ours, theirs = socket.socketpair()
            try:
                self._process = await self._in_thread(_start, theirs)
                ours.setblocking(False)
                line = _Line()
                await loop.create_unix_connection(lambda: line, sock=ours)
            except BaseException:
                ours.close()
                raise
            finally:
                theirs.close()
            self._line = line
            return line

    async def _end(self) -> None:
        line, self._line = self._line, None
        if line is not None and line.transport is not None:
            line.transport.abort()
        process, self._process = self._process, None
        if process is not None:
            await self._in_thread(_wait, process)


def _start(theirs: socket.socket) -> subprocess.Popen[bytes]:
    """It gets nothing of our environment."""
    command = [sys.executable, "-I", "-S", "-X", "utf8", str(_PROGRAM)]
    try:
        return subprocess.Popen(
            command,
            stdin=theirs.fileno(),
            stdout=subprocess.DEVNULL,
            cwd="/",
            env={"PATH": os.defpath},
            start_new_session=True,
        )
    except OSError as error:
        raise Unavailable(f"cannot run commands beside processes: cannot start their runner: {error.strerror}") from error


def _wait(process: subprocess.Popen[bytes]) -> None:
    with suppress(subprocess.TimeoutExpired):
        process.wait(_OWN_SECONDS)
        return
    _log.warning("the runner of commands does not end by itself; it is killed", extra={"pid": process.pid})
    process.kill()
    process.wait()


def _executed(answer: Mapping[str, Any], seconds: float) -> Executed:
    if "error" in answer:
        return Executed(None, problem=str(answer["error"]))
    output, status = str(answer["output"]), int(answer["status"])
    if answer.get("late"):
        return Executed(None, output, f"the command did not end within {seconds:g} s")
    if os.WIFSIGNALED(status):
        return Executed(None, output, f"the command was killed by {name_of(os.WTERMSIG(status))}")
    return Executed(os.WEXITSTATUS(status), output)

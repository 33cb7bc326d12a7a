"""The process that downloads."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from boreas_agent.artifacts.cache import Cache
from boreas_agent.artifacts.download import Downloader, Progress
from boreas_agent.artifacts.limits import Limits
from boreas_agent.errors import BoreasError
from boreas_agent.spec import Artifact

THREADS = 8
TELL_SECONDS = 0.2
NICER = 10
"""Whoever answers requests, and every app that is not as nice, comes first."""
MOST_BYTES = 1024 * 1024
"""Of one request."""


class Server:
    """For the one agent at the other end."""

    def __init__(self, downloader: Downloader, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._downloader = downloader
        self._reader = reader
        self._writer = writer
        self._tasks: dict[int, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Until there is nobody any more, however that is said."""
        try:
            while line := await self._reader.readline():
                self._asked(json.loads(line))
        except OSError:
            pass
        finally:
            self._downloader.keep = True
            for task in self._tasks.values():
                task.cancel()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def _asked(self, request: Mapping[str, Any]) -> None:
        if (given_up := self._tasks.get(request.get("cancel", 0))) is not None:
            given_up.cancel()
        if "artifact" in request:
            task = self._tasks[request["id"]] = asyncio.get_running_loop().create_task(self._serve(request))
            task.add_done_callback(partial(self._over, request["id"]))

    def _over(self, number: int, task: asyncio.Task[None]) -> None:
        """The end of a download; one that was given up before it began, too, has one."""
        del self._tasks[number]
        if task.cancelled():
            self._send({"id": number, "cancelled": True})

    async def _serve(self, request: Mapping[str, Any]) -> None:
        progress = Progress()
        telling = asyncio.get_running_loop().create_task(self._tell(request["id"], progress))
        try:
            answer: dict[str, Any] = {"digest": await self._downloader.run(Artifact(**request["artifact"]), request["key"], progress)}
        except BoreasError as error:
            answer = {"error": type(error).__name__, "message": str(error)}
        except Exception as error:  # noqa: BLE001  # a bug of ours: one download fails, and says so
            answer = {"error": "Transient", "message": f"it broke: {error!r}"}
        finally:
            telling.cancel()
        self._send({"id": request["id"], **answer})

    async def _tell(self, number: int, progress: Progress) -> None:
        told = None
        while True:
            await asyncio.sleep(TELL_SECONDS)
            if (now := (progress.done, progress.total)) != told:
                self._send({"id": number, "done": progress.done, "total": progress.total})
                told = now

    def _send(self, message: Mapping[str, Any]) -> None:
        self._writer.write(json.dumps(message).encode() + b"\n")


async def serve(request: Mapping[str, Any]) -> None:
    """Answer at standard input."""
    threads = ThreadPoolExecutor(THREADS, thread_name_prefix="download")

    async def in_thread(work: Any, *args: Any) -> Any:
        """Whoever is cancelled waits for it all the same: it must not go on with what others have by then."""
        working = asyncio.get_running_loop().run_in_executor(threads, work, *args)
        try:
            return await asyncio.shield(working)
        except asyncio.CancelledError:
            await asyncio.wait({working})
            raise

    given: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in request["limits"].items()}
    limits = Limits(**given)
    reader, writer = await asyncio.open_connection(sock=socket.socket(fileno=os.dup(0)), limit=MOST_BYTES)
    await Server(Downloader(Cache(Path(request["cache"]), limits), limits, in_thread), reader, writer).run()


def main(request: str) -> None:
    """Never comes back. Threads that a dead disk holds are left behind."""
    os.nice(NICER)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the agent, which then says what is to become of all this
    try:
        asyncio.run(serve(json.loads(request)))
    except Exception:  # noqa: BLE001  # a bug of ours, which the agent's log is to have
        sys.excepthook(*sys.exc_info())
        os._exit(1)
    os._exit(0)

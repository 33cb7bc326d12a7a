"""Has artifacts fetched into the cache: one download for all who want the same.

Whoever gives up leaves a shared download to the others; the last one to leave ends it, and nothing of it stays. A download that
failed keeps what it has for the next attempt, which the reconciler's backoff brings.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from dataclasses import dataclass

from boreas_agent.artifacts.cache import Cache
from boreas_agent.artifacts.fetching import Fetching
from boreas_agent.artifacts.limits import InThread, Limits
from boreas_agent.errors import Transient
from boreas_agent.spec import Artifact

_MIB = 1024 * 1024


@dataclass(slots=True, eq=False)
class Download:
    """One on its way, by whom ever it is waited for. ``total`` None: not known."""

    artifact: Artifact
    waiters: int = 0
    done: int = 0
    total: int | None = None
    task: asyncio.Task[str] | None = None

    @property
    def failed(self) -> bool:
        """Whether there is nothing to wait for any more."""
        return self.task is not None and self.task.done() and (self.task.cancelled() or self.task.exception() is not None)

    def hear(self, done: int, total: int | None) -> None:
        """How far it has come."""
        self.done, self.total = done, total

    def __str__(self) -> str:
        of = "" if self.total is None else f" of {self.total / _MIB:,.1f}"
        return f"fetching {self.artifact.name}: {self.done / _MIB:,.1f}{of} MiB"


class Fetcher:
    """For one event loop."""

    def __init__(self, cache: Cache, limits: Limits, in_thread: InThread) -> None:
        self._cache = cache
        self._in_thread = in_thread
        self._fetching = Fetching(cache.folder, limits, in_thread)
        self._downloads: dict[str, Download] = {}

    def leave(self) -> None:
        """Whatever is given up from now on is kept for the next agent."""
        self._fetching.leave()

    async def close(self) -> None:
        """Give every download up; the next agent goes on with what is here."""
        tasks = [one.task for one in self._downloads.values() if one.task]
        await self._fetching.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def fetch(self, artifact: Artifact, tell: Callable[[Download], None]) -> str:
        """Have it in the cache, verified; its digest. ``tell`` is told what is waited for. Raises Transient, Missing, Terminal."""
        if artifact.sha256 is not None and await self._in_thread(self._cache.verified, artifact.sha256):
            return artifact.sha256
        key = artifact.sha256 or uuid.uuid4().hex
        while True:
            download = self._downloads.get(key)
            if own := download is None or download.failed:
                download = self._downloads[key] = Download(artifact)
                download.task = asyncio.create_task(self._download(download, key))
            tell(download)
            try:
                return await self._wait(download, key)
            except Transient:
                if own or download.artifact.url == artifact.url:
                    raise  # else it was another's address that did not work

    async def _wait(self, download: Download, key: str) -> str:
        assert download.task is not None
        download.waiters += 1
        try:
            return await asyncio.shield(download.task)
        finally:
            download.waiters -= 1
            if not download.waiters:
                if self._downloads.get(key) is download:
                    del self._downloads[key]
                download.task.cancel()
                await asyncio.gather(download.task, return_exceptions=True)

    async def _download(self, download: Download, key: str) -> str:
        with self._cache.using((key,)):
            return await self._fetching.download(download.artifact, key, download.hear)

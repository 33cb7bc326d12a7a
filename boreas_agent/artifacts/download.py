"""One download into the cache: hashed while it comes, and gone on with where it was cut off. What the fetcher does all day.

A download that failed keeps what it has for the next attempt; one that is given up, or can never be what was asked for, leaves nothing.
"""

from __future__ import annotations

import asyncio
import errno
from dataclasses import dataclass

from boreas_agent.artifacts.cache import Cache, NoRoom, Partial
from boreas_agent.artifacts.limits import InThread, Limits
from boreas_agent.artifacts.sources import Incoming, Sources
from boreas_agent.errors import Missing, Transient
from boreas_agent.spec import Artifact


@dataclass(slots=True)
class Progress:
    """How many bytes are here, of ``total``; None: nobody knows."""

    done: int = 0
    total: int | None = None


class Downloader:
    """``keep``: what is given up is to be gone on with by another one."""

    def __init__(self, cache: Cache, limits: Limits, in_thread: InThread) -> None:
        self._cache = cache
        self._limits = limits
        self._in_thread = in_thread
        self._sources = Sources(limits, in_thread)
        self.keep = False

    async def run(self, artifact: Artifact, key: str, progress: Progress) -> str:
        """Have all of it in the cache, verified; its digest. Raises Transient, Missing, Terminal."""
        try:
            partial = await self._in_thread(Partial, self._cache, key, self._limits.max_bytes)
            try:
                return await self._complete(artifact, partial, progress)
            finally:
                await self._in_thread(partial.close)
        except OSError as error:
            raise of_disk(error) from error

    async def _complete(self, artifact: Artifact, partial: Partial, progress: Progress) -> str:
        """The whole of it, in the cache; its digest. What is no use to the next attempt is deleted."""
        try:
            async with asyncio.timeout(self._limits.seconds):
                await self._get(artifact, partial, progress)
                await self._in_thread(partial.finish)
                return partial.digest
        except TimeoutError:
            raise Transient(f"it was not here within {self._limits.seconds:g} s; what is here is kept") from None
        except (asyncio.CancelledError, Missing, NoRoom, OSError):
            if not self.keep:
                await self._in_thread(partial.delete)
            raise

    async def _get(self, artifact: Artifact, partial: Partial, progress: Progress) -> None:
        """Its bytes, verified. Raises Missing where they are others."""
        while await self._in_thread(partial.catch_up):
            pass
        if partial.size and not _is_wrong(artifact, partial):
            return
        resumed = await self._receive(artifact, partial, progress)
        if resumed and _is_wrong(artifact, partial):
            await self._in_thread(partial.restart)  # perhaps it was not the beginning of this one
            await self._receive(artifact, partial, progress)
        if _is_wrong(artifact, partial):
            raise Missing(f"it has the wrong checksum: expected sha256 {artifact.sha256}, got {partial.digest}")

    async def _receive(self, artifact: Artifact, partial: Partial, progress: Progress) -> bool:
        """All that is missing; whether it was added to what an earlier attempt has left."""
        async with self._sources.open(artifact, partial.size) as incoming:
            resumed = incoming.start > 0
            if incoming.start != partial.size:
                await self._in_thread(partial.restart)
            progress.total, progress.done = incoming.total, partial.size
            await self._in_thread(partial.expect, incoming.total)
            await self._write(partial, incoming, progress)
        return resumed

    @staticmethod
    async def _write(partial: Partial, incoming: Incoming, progress: Progress) -> None:
        """Hashed and written right here: this process has nothing else to do, and a thread would only take another processor."""
        async for chunk in incoming.chunks:
            progress.done += len(chunk)
            partial.write((chunk,))


def _is_wrong(artifact: Artifact, partial: Partial) -> bool:
    return artifact.sha256 not in (None, partial.digest)


def of_disk(error: OSError) -> Transient:
    """The system's fault in words."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoRoom("the disk is full; it is tried again once there is room")
    return Transient(f"{error.filename or 'the disk'}: {error.strerror}")

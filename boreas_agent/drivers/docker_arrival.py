"""Waiting for an engine that is away: the kernel tells when its socket appears, so nobody asks again and again meanwhile."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from asyncinotify import Inotify, Mask

AWAY_SECONDS = 30.0
"""Where there is no socket, and its folder is watched, it is looked for so seldom."""


class Arrival:
    """Of the socket at ``path``, which may be a link to it. For one event loop."""

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self._watch: Inotify | None = None
        self._names: frozenset[str] = frozenset()

    async def within(self, seconds: float) -> bool:
        """Let ``seconds`` pass, or, where there is no socket, wait up to AWAY_SECONDS for it to appear; whether it did."""
        if not await asyncio.to_thread(self._is_missed):
            await asyncio.sleep(seconds)
            return False
        return await asyncio.to_thread(self._exists) or await self._appears()

    def close(self) -> None:
        """It has come, or nobody waits any more. It may be waited for again."""
        if self._watch is not None:
            self._watch.close()
            self._watch = None

    def _is_missed(self) -> bool:
        """It is not there, and from now on its coming will be told; False where it is, or where nothing can tell."""
        if self._exists():
            return False
        if self._watch is None:
            places = {self._path.absolute(), Path(os.path.realpath(self._path))}
            self._names = frozenset(place.name for place in places)
            try:
                self._watch = Inotify()
                os.set_blocking(self._watch.fd, False)
                for folder in {place.parent for place in places}:
                    self._watch.add_watch(folder, Mask.CREATE | Mask.MOVED_TO | Mask.MOVE_SELF | Mask.ONLYDIR)
            except OSError:
                self.close()
        return self._watch is not None

    def _exists(self) -> bool:
        """A folder that may not be searched holds nothing for us."""
        return os.path.exists(self._path)  # noqa: PTH110  # unlike Path's it never raises

    async def _appears(self) -> bool:
        """Afterwards it is watched anew, wherever the path leads by then."""
        assert self._watch is not None
        try:
            async with asyncio.timeout(AWAY_SECONDS):
                async for event in self._watch:
                    if event.name is None:  # the folder has gone, or there were too many events
                        return False
                    if str(event.name) in self._names:
                        return True
        except TimeoutError:
            pass
        finally:
            self.close()
        return False

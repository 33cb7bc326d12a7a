"""Folders made ahead: an app's first start would otherwise wait until six of them, and the files in them, are made.

A blank is the folder of an app that does not exist yet. Whoever starts the app fills it in and moves it into place, which fails, and
changes nothing, where the app's own folder holds anything already.
"""

from __future__ import annotations

import asyncio
import shutil
import uuid
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any

from boreas_agent.drivers.runs import Layout
from boreas_agent.model import InstanceName

FIRST_RUN = 1
_PREFIX, _SWEPT = ".blank.", ".swept"


class Blanks:
    """Keeps one blank ready. ``in_thread`` runs what touches the disk."""

    def __init__(self, layout: Layout, in_thread: Callable[..., Awaitable[Any]]) -> None:
        self._layout = layout
        self._in_thread = in_thread
        self._ready: InstanceName | None = None
        self._making: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Delete what an agent that was killed left behind, and have a blank ready."""
        await self._in_thread(self._sweep)
        self.refill()

    async def close(self) -> None:
        """Delete the blank."""
        if self._making:
            await asyncio.wait((self._making,))
        await self._in_thread(self._sweep)

    def take(self, name: InstanceName) -> Mapping[str, Any] | None:
        """The parts of a keeper's request for ``FIRST_RUN`` that make the blank the folder of ``name``; None where none is ready."""
        blank, self._ready = self._ready, None
        if blank is None or name.replica != blank.replica:
            return None
        wanted, moves = self._layout.places(name), []
        if name.revision != blank.revision:
            made = self._layout.places(InstanceName(name.app, blank.revision, blank.replica))
            moves = [(made.release, wanted.release), (made.folder, wanted.folder)]
        return {
            "blank": (self._layout.places(blank).app, wanted.app),
            "moves": moves,
            "sync": [wanted.instances, wanted.app, wanted.apps],
        }

    def refill(self) -> None:
        """Have another one ready soon."""
        if self._ready is None and (self._making is None or self._making.done()):
            self._making = asyncio.get_running_loop().create_task(self._make())

    async def _make(self) -> None:
        with suppress(OSError):  # while the disk is full, starts go without
            self._ready = await self._in_thread(self._make_one)

    def _make_one(self) -> InstanceName:
        blank = InstanceName(f"{_PREFIX}{uuid.uuid4().hex}", 1, 0)  # most likely the app's first revision
        logs = [self._layout.log(blank, stream) for stream in ("stdout", "stderr")]
        for folder in (self._layout.release(blank), logs[0].parent, self._layout.folder(blank).parent):
            folder.mkdir(parents=True)
        self._layout.folder(blank).mkdir(mode=0o700)
        for file in (*logs, self._layout.folder(blank) / "instance.json", self._layout.folder(blank) / f"{FIRST_RUN}.claim"):
            file.touch(mode=0o600)
        return blank

    def _sweep(self) -> None:
        """Each is renamed first: where somebody is about to move it in, either that fails as a whole, or this does.

        What cannot be deleted is left to the next agent.
        """
        for left in self._layout.apps.glob(f"{_PREFIX}*"):
            with suppress(OSError):
                shutil.rmtree(left if left.suffix == _SWEPT else left.rename(f"{left}{_SWEPT}"))

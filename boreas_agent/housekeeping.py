"""Removes images that the agent has pulled and that nobody needs any more, and networks that were made in vain.

Nothing depends on it: what goes wrong here is logged and tried again at the next look. What may go is decided in ``image_gc``.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from datetime import timedelta

from msgspec.structs import replace

from boreas_agent import image_gc
from boreas_agent.clock import Clock
from boreas_agent.drivers.docker import DockerDriver
from boreas_agent.drivers.docker_images import Pulled
from boreas_agent.errors import BoreasError
from boreas_agent.image_gc import Policy
from boreas_agent.model import Event, PulledImage
from boreas_agent.spec import DockerPkg
from boreas_agent.store.store import Store

log = logging.getLogger(__name__)

RETRY_SECONDS = 5.0
WORTH_A_ROW_SECONDS = 3600.0
"""Idle time is put on record when it has grown by this; a restart of the agent may lose so much of it."""


class Housekeeping:
    """Looks every ``interval`` seconds; ``policy`` None: it only remembers what was pulled."""

    def __init__(self, store: Store, docker: DockerDriver, clock: Clock, interval: float, policy: Policy | None) -> None:
        self._store = store
        self._docker = docker
        self._clock = clock
        self._interval = interval
        self._policy = policy
        self._idle: dict[str, float] = {}
        self._looked: float | None = None

    async def run(self) -> None:
        """Until cancelled."""
        if not self._docker.shelf.enabled:
            return
        async with asyncio.TaskGroup() as group:
            group.create_task(self._note_pulls())
            group.create_task(self._look_for_ever())

    async def _note_pulls(self) -> None:
        """What is pulled is put on record at once: what is not there is never removed."""
        while True:
            pulled = await self._docker.shelf.pulled()
            while True:
                try:
                    await self._note(pulled)
                    break
                except BoreasError as error:
                    log.warning("cannot record what was pulled", extra={"error": str(error)})
                    await asyncio.sleep(RETRY_SECONDS)

    async def _note(self, pulled: Sequence[Pulled]) -> None:
        """An image that was ours has another name now; one that was not stays somebody else's."""
        known = {one.id: one for one in await self._store.images()}
        for one in pulled:
            before = known.get(one.id)
            if before is not None:
                known[one.id] = replace(before, names=tuple(dict.fromkeys((*before.names, one.name))))
            elif one.new:
                known[one.id] = PulledImage(one.id, (one.name,), self._clock.now())
        changed = [known[one] for one in dict.fromkeys(one.id for one in pulled) if one in known]
        if changed:
            await self._store.record_images(changed)

    async def _look_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self._interval)
            try:
                await self.look()
            except BoreasError as error:
                log.warning("could not look for what nobody needs any more", extra={"error": str(error)})

    async def look(self) -> None:
        """One look. Raises BoreasError."""
        pkgs = [pkg for head in self._store.heads.values() for pkg in (head.revision.pkg, head.running.pkg)]
        await self._docker.sweep_networks({network.name for pkg in pkgs if isinstance(pkg, DockerPkg) for network in pkg.networks})
        if self._policy is None:
            return
        ids, names = image_gc.needed(self._store.heads.values())
        used, here = ids | await self._docker.shelf.used(names), await self._docker.shelf.here()
        recorded = await self._store.images()
        images = image_gc.aged([one for one in recorded if one.id in here], used, self._idle, self._passed())
        removed = await self._remove(images, self._policy)
        left = [one for one in images if one.id not in removed]
        self._idle = {one.id: one.idle for one in left}
        await self._record(recorded, left, removed)

    def _passed(self) -> float:
        """Seconds since the last look; a machine that slept has not made anything idle for so long."""
        before, self._looked = self._looked, self._clock.boottime()
        return 0.0 if before is None else min(self._looked - before, 2 * self._interval)

    async def _remove(self, images: Sequence[PulledImage], policy: Policy) -> Mapping[str, str]:
        """Remove what is to go; why, by id."""
        removed: dict[str, str] = {}
        for image in image_gc.too_old(images, policy):
            if await self._docker.shelf.remove(image.id, image.names):
                removed[image.id] = f"nobody has needed it for {timedelta(seconds=round(image.idle))}"
        percent = await self._docker.shelf.percent_used()
        if percent <= policy.high_percent:
            return removed
        for image in image_gc.for_room([one for one in images if one.id not in removed], policy):
            if percent <= policy.low_percent:
                break
            if await self._docker.shelf.remove(image.id, image.names):
                removed[image.id] = f"nobody needs it, and the disk of the engine's images was {percent:.0f}% full"
                percent = await self._docker.shelf.percent_used()
        return removed

    async def _record(self, recorded: Sequence[PulledImage], left: Sequence[PulledImage], removed: Mapping[str, str]) -> None:
        known, now = {one.id: one.idle for one in recorded}, self._clock.now()
        changed = [one for one in left if _worth_a_row(known[one.id], one.idle)]
        gone = [replace(one, removed_at=now) for one in recorded if one.id not in self._idle]
        events = [
            Event("ImageRemoved", f"removed image {' '.join(one.names)} ({one.id[7:19]}): {removed[one.id]}")
            for one in gone
            if one.id in removed
        ]
        if changed or gone:
            await self._store.record_images([*changed, *gone], events)


def _worth_a_row(before: float, after: float) -> bool:
    return after < before or after - before >= WORTH_A_ROW_SECONDS

"""Where the instances of apps are, and what of them the database does not know.

A head remembers the kinds of its last seen instances; what it does not name yet, because they were found or asked for a moment ago, is
kept here until it does.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import suppress

from msgspec.structs import replace

from boreas_agent.clock import Clock
from boreas_agent.drivers.base import Driver
from boreas_agent.errors import Invalid, Unavailable
from boreas_agent.model import Head, Health, Observed, Revision, Status
from boreas_agent.records import decode
from boreas_agent.store.store import Store

log = logging.getLogger(__name__)


class Homes:
    """For one event loop."""

    def __init__(self, store: Store, drivers: Mapping[str, Driver], clock: Clock) -> None:
        self._store = store
        self._drivers = drivers
        self._clock = clock
        self._kinds: dict[str, set[str]] = {}

    def expect(self, app: str, kind: str) -> None:
        """Whatever comes, also a removal, has to look there from now on."""
        self._kinds.setdefault(app, set()).add(kind)

    def recorded(self, app: str) -> None:
        """From here on the head names them."""
        self._kinds.pop(app, None)

    async def survey(self) -> AsyncGenerator[Mapping[str, Sequence[Observed]], None]:
        """Look at everything once; adopt what runs and is not in the database. Gives what was seen, by app.

        An app is given as soon as all of its drivers have answered, so that none waits for a driver that is none of
        its own. Apps of a driver that cannot answer are left out: each of them finds out in its own pass.
        """
        seen: dict[str, list[Observed]] = {}
        answered: set[Driver] = set()
        given: set[str] = set()  # or unknown
        looks = {asyncio.ensure_future(driver.observe_all()): driver for driver in set(self._drivers.values())}
        try:
            while looks:
                done, _ = await asyncio.wait(looks, return_when=asyncio.FIRST_COMPLETED)
                for look in done:
                    driver = looks.pop(look)
                    with suppress(Unavailable):
                        given |= await self._take_in(look.result(), seen)
                        answered.add(driver)
                heads = {app for app in {*seen, *self._store.heads} - given if self._of(app, self._store.head(app)) <= answered}
                given |= heads
                yield {app: seen.get(app, ()) for app in heads}
        finally:
            for look in looks:
                look.cancel()

    async def _take_in(self, found: Mapping[str, Sequence[Observed] | None], seen: dict[str, list[Observed]]) -> set[str]:
        """Add what one driver found to ``seen``, and adopt it; the apps of which it could not say enough."""
        for app, observed in found.items():
            if observed is not None:
                seen.setdefault(app, []).extend(observed)
                self._kinds.setdefault(app, set()).update(one.kind for one in observed)
                await self.adopt(app, seen[app])
        return {app for app, observed in found.items() if observed is None}

    async def adopt(self, app: str, observed: Sequence[Observed]) -> None:
        """The newest revision that an instance carries becomes the head, if the database does not know it."""
        newest = max(observed, key=lambda one: one.revision, default=None)
        head = self._store.head(app)
        if newest is None or (head is not None and newest.revision <= head.revision.revision):
            return
        try:
            await self._store.adopt(decode(newest.record))
        except Invalid as error:
            log.warning("instance left alone: its record cannot be read", extra={"instance": str(newest.name), "error": str(error)})

    async def observe(self, app: str, head: Head | None) -> list[Observed]:
        """What there is of ``app``. Raises Unavailable where a driver that has to be asked cannot answer."""
        observed: list[Observed] = []
        for driver in self._of(app, head):
            observed += await driver.observe(app)
        return observed

    async def remnant(self, app: str) -> Head | None:
        """A head for instances that outlived the record of their removal: it wants them gone."""
        if app not in self._kinds:
            return None
        try:
            observed = await self.observe(app, None)
        except Unavailable:
            return None
        newest = await self._store.newest(app)
        readable = next((one for one in observed if one.revision <= newest), None)
        if readable is None:
            del self._kinds[app]
            return None
        try:
            carried = decode(readable.record)
        except Invalid:
            return None
        gone: Revision = replace(carried, revision=newest, kind="remove", submitted_by="an earlier removal")
        return Head(gone, Health(0, Status.REMOVING, "removing"), self._clock.now())

    def _of(self, app: str, head: Head | None) -> set[Driver]:
        """The drivers that must answer before anything is planned for ``app``: where it is, has been, and shall be."""
        kinds = self._kinds.get(app, set())
        if head is not None:
            kinds = kinds | head.homes | (set() if head.revision.removed else {head.revision.pkg.type, head.running.pkg.type})
        return {self._drivers[kind] for kind in kinds}

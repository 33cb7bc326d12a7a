"""How other apps of the node are at this moment, as far as an app depends on them: their heads and what the drivers see of them.

Nothing is remembered, and what is on record counts only where it is about the very runs that are seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from boreas_agent import dependencies
from boreas_agent.backoff import Moment
from boreas_agent.clock import Clock
from boreas_agent.dependencies import Found
from boreas_agent.drivers.base import Driver
from boreas_agent.errors import Unavailable
from boreas_agent.model import Head, Observed
from boreas_agent.store.store import Store


class Neighbours:
    """Needs the heads of all apps, and the drivers."""

    def __init__(self, store: Store, drivers: Sequence[Driver], clock: Clock) -> None:
        self._store = store
        self._drivers: Mapping[str, Driver] = {kind: driver for driver in drivers for kind in driver.kinds}
        self._clock = clock

    async def lacking(self, head: Head) -> str:
        """What new instances of the head's running revision would wait for now, in words; empty for nothing."""
        needs = head.running.pkg.depends_on
        found = {need.app: one for need in needs if (one := await self._find(need.app)) is not None}
        return dependencies.why(head.app, needs, found, self.needed)

    def needed(self, app: str) -> Sequence[str]:
        """The apps that ``app`` depends on."""
        return dependencies.needed(self._store.head(app))

    async def runs(self, app: str) -> bool:
        """Whether anything of ``app`` runs; where nobody can say, it may."""
        head = self._store.head(app)
        try:
            return head is not None and dependencies.runs(await self._observe(head))
        except Unavailable:
            return True

    async def _find(self, app: str) -> Found | None:
        head = self._store.head(app)
        if head is None:
            return None
        try:
            observed = await self._observe(head)
        except Unavailable as error:
            return Found(head, head.health, unknown=str(error))
        head = self._store.head(app)  # it may have changed meanwhile
        moment = Moment(self._clock.boottime(), self._clock.boot_id, 0.0)
        return None if head is None else dependencies.find(head, observed, moment, self._clock.now())

    async def _observe(self, head: Head) -> list[Observed]:
        kinds = head.homes | {head.revision.pkg.type, head.running.pkg.type}
        return [one for driver in {self._drivers[kind] for kind in kinds} for one in await driver.observe(head.app)]

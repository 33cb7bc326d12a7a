"""Whose turn it is: an app's new instances start after those they depend on, and a drained node stops them in the reverse order.

What waits is woken by the next change of an app that it waits for; the resync looks anyway. All that is kept is in memory, and may be
forgotten: what was familiar then waits like anything new, and what waits is told of once more.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from functools import partial

from msgspec.structs import replace

from boreas_agent import dependencies
from boreas_agent.dependencies import Familiar
from boreas_agent.drivers.mailbox import Mailbox
from boreas_agent.model import Check, Drained, Event, Head, Observed, Plan, Start, Stop, Waiting
from boreas_agent.neighbours import Neighbours
from boreas_agent.store.store import Store


class Turns:
    """For one event loop."""

    def __init__(self, store: Store, neighbours: Neighbours) -> None:
        self._store = store
        self._neighbours = neighbours
        self._woken = Mailbox()
        self._watches: dict[str, list[asyncio.Future[None]]] = {}
        self._familiar: dict[str, Familiar] = {}
        self._told: dict[str, int] = {}
        self._drained: Drained | None = None
        self._at_rest: set[str] = set()  # nothing of them has run since the node was drained

    async def events(self) -> AsyncIterator[str]:
        """The apps of which something waited for has changed."""
        while True:
            yield await self._woken.take()

    async def take(
        self, head: Head, observed: Sequence[Observed], planned: Plan, drained: Drained | None, epoch: int
    ) -> tuple[Plan, Waiting | None]:
        """What of ``planned`` may be done now, and what the rest waits for. ``epoch``: that of the driver that would start it."""
        self._unwatch(head.app)
        if drained != self._drained:
            self._drained = drained
            self._at_rest.clear()
        if drained is None:
            return await self._start(head, observed, planned, epoch)
        self._familiar.pop(head.app, None)
        return await self._stop(head, planned)

    def started(self, head: Head, plan: Plan) -> None:
        """The starts of ``plan`` worked, so these replicas are new no longer."""
        replicas = {action.want.name.replica for action in plan.actions if isinstance(action, Check | Start)}
        if replicas:
            self._told.pop(head.app, None)
        if known := self._familiar.get(head.app):
            self._familiar[head.app] = replace(known, replicas=known.replicas | replicas)

    def news(self, head: Head, waiting: Waiting | None) -> list[Event]:
        """What is to be told of the wait: that it has begun, once."""
        number = head.revision.revision
        if waiting is None or not waiting.replicas or self._told.get(head.app) == number:
            return []
        self._told[head.app] = number
        return [Event("Waiting", f"{head.app} is {waiting.why}", head.app, number)]

    def forget(self, app: str) -> None:
        """The app is gone."""
        self._unwatch(app)
        self._familiar.pop(app, None)
        self._told.pop(app, None)
        self._at_rest.discard(app)

    # --- forwards ------------------------------------------------------------------------------------

    async def _start(self, head: Head, observed: Sequence[Observed], planned: Plan, epoch: int) -> tuple[Plan, Waiting | None]:
        needs = dependencies.needed(head)
        if not needs:
            self._familiar.pop(head.app, None)
            return planned, None
        known = self._familiar[head.app] = dependencies.familiar(self._familiar.get(head.app), head, observed, epoch)
        new = dependencies.newcomers(planned, head, observed, known)
        if not new:
            return planned, None
        self._watch(head.app, needs)  # before looking, so that no change falls between the two
        why = await self._neighbours.lacking(head)
        if not why:
            self._unwatch(head.app)
            return planned, None
        waiting = Waiting(new, why)
        return dependencies.hold_back(planned, head, waiting), waiting

    # --- and back ------------------------------------------------------------------------------------

    async def _stop(self, head: Head, planned: Plan) -> tuple[Plan, Waiting | None]:
        """On a drained node: nothing is stopped while something that depends on it runs.

        Who is held stays as it is and is not waited for; nor is an app that this one depends on itself.
        """
        if head.revision.removed or head.revision.pkg.type == "script" or not planned.has(Stop):
            return planned, None
        before = dependencies.everything_before(head.app, dependencies.needed(head), self._neighbours.needed)
        for name in sorted(self._store.dependents(head.app) - self._at_rest - before):
            other = self._store.head(name)
            if other is None or other.hold is not None:
                continue
            self._watch(head.app, [name])
            if await self._neighbours.runs(name):
                return dependencies.keep_running(planned), Waiting(frozenset(), f"waiting for {name} to stop")
            self._at_rest.add(name)
        self._unwatch(head.app)
        return planned, None

    # --- waking --------------------------------------------------------------------------------------

    def _watch(self, app: str, others: Iterable[str]) -> None:
        """Wake ``app`` at the next change of one of the others, instead of what it was to be woken by so far."""
        self._unwatch(app)
        self._watches[app] = [self._store.changed(other) for other in others]
        for future in self._watches[app]:
            future.add_done_callback(partial(self._changed, app))

    def _changed(self, app: str, future: asyncio.Future[None]) -> None:
        if not future.cancelled():
            self._woken.put(app)

    def _unwatch(self, app: str) -> None:
        for future in self._watches.pop(app, ()):
            future.cancel()

"""What an apply would cause, exactly: its own decisions on the desired state it would record and on what is really there.

Nothing is changed. What may go wrong is not foreseen: a version that turns out to be bad is another plan.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from boreas_agent import ledger
from boreas_agent.backoff import Moment
from boreas_agent.clock import Clock
from boreas_agent.drivers.base import Driver
from boreas_agent.model import Action, Head, Observed, Prepare, Start
from boreas_agent.neighbours import Neighbours
from boreas_agent.rehearsal import rehearse
from boreas_agent.spec import Submission
from boreas_agent.store import changes
from boreas_agent.store.store import Store
from boreas_agent.store.values import Preview, Receipt


class Previewer:
    """Needs to see what the reconciler sees: the heads, and what the drivers observe."""

    def __init__(self, store: Store, drivers: Sequence[Driver], clock: Clock) -> None:
        self._store = store
        self._drivers: Mapping[str, Driver] = {kind: driver for driver in drivers for kind in driver.kinds}
        self._clock = clock
        self._neighbours = Neighbours(store, drivers, clock)

    async def preview(self, submission: Submission, by: str) -> Preview:
        """The receipt that an apply would get, and the actions that would follow. Raises Unavailable where nobody can say what runs."""
        app = submission.app
        known = self._store.head(app) or await self._store.newest(app)
        change = changes.apply(submission, by, known, self._clock.now())
        head = change.state
        if change.asks is not None:
            changes.check_order(change.asks, self._store.head)
        if not isinstance(head, Head):
            return Preview(change.answer, ())
        if self._store.drained is not None:
            return Preview(_told(change.answer, "the node is drained, so nothing would happen before that ends"), ())
        observed = await self._observe(head)
        moment = Moment(self._clock.boottime(), self._clock.boot_id, 0.0)
        head = replace(head, attempts=ledger.enter(head, observed, moment, self._clock.now()).attempts)
        actions: list[Action] = []
        for stride in rehearse(head, observed, moment.boottime):
            actions += [action for action in stride if not await self._is_here(action)]
            await asyncio.sleep(0)  # a thousand replicas one by one are a thousand plans
        count = f"{len(actions)} action{'' if len(actions) == 1 else 's'} would follow"
        lacking = await self._neighbours.lacking(head) if any(isinstance(action, Start) for action in actions) else ""
        waits = f"; it would be {lacking}" if lacking else ""
        held = f"{app} is held by {head.hold.by}, so nothing would happen before it is released" if head.hold else ""
        return Preview(_told(change.answer, held or count + waits), tuple(actions))

    async def _observe(self, head: Head) -> list[Observed]:
        kinds = head.homes | {head.revision.pkg.type}
        found = [await driver.observe(head.app) for driver in {self._drivers[kind] for kind in kinds}]
        return [one for observed in found for one in observed]

    async def _is_here(self, action: Action) -> bool:
        return isinstance(action, Prepare) and await self._drivers[action.want.pkg.type].prepared(action.want)


def _told(receipt: Receipt, then: str) -> Receipt:
    return replace(receipt, message=f"it would be revision {receipt.revision}; {then}")

"""Observe, plan, act, record: one app, one pass after another, until there is nothing left to do.

A pass holds no transaction while it acts. What it did and found is committed at its end, whole; what must not be
lost by acting (exits that the driver forgets) is committed before.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from boreas_agent import drain, ledger, planner
from boreas_agent import health as judge
from boreas_agent.backoff import Moment, after_failure, delay_seconds
from boreas_agent.clock import Clock
from boreas_agent.drivers.base import Driver
from boreas_agent.errors import Invalid, Unavailable
from boreas_agent.executor import Done, Executor, Failure
from boreas_agent.model import (
    Attempts,
    Deadline,
    Drained,
    Event,
    Head,
    Health,
    Instance,
    Observed,
    Plan,
    Remove,
    Revision,
    Start,
    Status,
    Stop,
)
from boreas_agent.probing import Probes
from boreas_agent.records import decode
from boreas_agent.spec import Restart
from boreas_agent.store.store import Store
from boreas_agent.store.values import Outcome

log = logging.getLogger(__name__)

MAX_PASSES = 20
"""So many passes in a row at most; then the app waits like any other, however restless it is."""
BREATH_SECONDS = 1.0
SLOW_SECONDS = 0.5
"""Acting longer than this is worth a word in the status before it has ended."""
RETRY_SECONDS = 5.0
"""When to look again at a driver that could not answer, or to try again to stop or remove what would not go."""


_STUCK_POLICY = Restart(initial_delay_seconds=RETRY_SECONDS, max_delay_seconds=60.0)


@dataclass(frozen=True, slots=True)
class _Stuck:
    """What could not be done for an app the last time, and how often in a row."""

    message: str
    times: int


@dataclass(frozen=True, slots=True)
class _View:
    """One app at one moment: its head with the attempts brought up to date, what runs, and what is new."""

    head: Head
    observed: Sequence[Observed]
    account: ledger.Account
    drained: Drained | None = None


class Reconciler:
    """Converges apps; keeps no state of its own beyond what kinds of instances a survey has seen of an app."""

    def __init__(self, store: Store, drivers: Sequence[Driver], clock: Clock, chance: Callable[[], float], probes: Probes) -> None:
        self._store = store
        self._probes = probes
        self._drivers: Mapping[str, Driver] = {kind: driver for driver in drivers for kind in driver.kinds}
        self._clock = clock
        self._chance = chance
        self._homes: dict[str, set[str]] = {}
        self._stuck: dict[str, _Stuck] = {}
        self._executor = Executor(self._drivers.__getitem__, store, self._tell_fetching)

    # --- everything ------------------------------------------------------------------------------

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
                heads = {app for app in {*seen, *self._store.heads} - given if self._homes_of(app, self._store.head(app)) <= answered}
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
                self._homes.setdefault(app, set()).update(one.kind for one in observed)
                await self._adopt(app, seen[app])
        return {app for app, observed in found.items() if observed is None}

    async def _adopt(self, app: str, observed: Sequence[Observed]) -> None:
        """The newest revision that an instance carries becomes the head, if the database does not know it."""
        newest = max(observed, key=lambda one: one.name.revision, default=None)
        head = self._store.head(app)
        if newest is None or (head is not None and newest.name.revision <= head.revision.revision):
            return
        try:
            await self._store.adopt(decode(newest.record))
        except Invalid as error:
            log.warning("instance left alone: its record cannot be read", extra={"instance": str(newest.name), "error": str(error)})

    # --- one app ---------------------------------------------------------------------------------

    async def reconcile(self, app: str, seen: Sequence[Observed] | None = None) -> float | None:
        """Converge ``app``; returns the boot second at which to come again though nothing happens, or None.

        ``seen`` is what a survey has just found, to save another look. Raises CannotRecord.
        """
        done = Done()
        view: _View | None = None
        for _ in range(MAX_PASSES):
            head = self._store.head(app) or await self._remnant(app)
            if head is None:
                self._probes.forget(app)
                await self._leave(app, done)
                return None
            try:
                observed = seen if seen is not None else await self._observe(app, head)
            except Unavailable as error:
                return await self._record_unknown(head, str(error), done)
            seen = None
            if any(one.name.revision > head.revision.revision for one in observed):
                await self._adopt(app, observed)
                newest = self._store.head(app)
                if newest is None or newest.revision.revision <= head.revision.revision:
                    return await self._record_unknown(head, "an instance of a newer revision carries a record that cannot be read", done)
                continue
            view = self._view(head, observed)
            plan = drain.plan(view.head, planner.plan(view.head, observed, self._clock.boottime()), view.drained)
            if plan.steps:
                view, done = await self._act(view, plan, done)
            if not plan.steps or done.failures:
                return await self._record(view, plan, done)
        if view is not None:
            await self._store.record(self._outcome(view, view.head.health, view.head.proven, done))
        return self._clock.boottime() + BREATH_SECONDS

    async def _act(self, view: _View, plan: Plan, before: Done) -> tuple[_View, Done]:
        """Carry out ``plan``; what acting would make unknowable is committed first. ``before``: done and not yet recorded."""
        head = view.head
        removing = any(isinstance(action, Remove) for action in plan.actions)
        # Where a start may be answered by nobody tomorrow (the engine is away), it must be known today where to ask.
        settling_in = self._forgets(head) and head.revision.pkg.type not in head.homes and any(isinstance(a, Start) for a in plan.actions)
        there = {one.name for one in view.observed}
        succeeding = any(isinstance(action, Start) and action.want.name not in there for action in plan.actions)
        endings = view.account.leftovers if removing else ()
        if endings or settling_in or self._dooms(head, plan) or (view.account.exits and (removing or succeeding or self._forgets(head))):
            before.exits += endings
            outcome = self._outcome(view, head.health, head.proven, before)
            outcome = replace(outcome, homes=outcome.homes | {head.revision.pkg.type})
            await self._store.record(outcome)
            head = replace(head, homes=outcome.homes)
            view, before = replace(view, head=head, account=replace(view.account, exits=(), events=())), Done()
        before.add(await self._carry_out(view, plan))
        before.events += [failure.event for failure in before.failures if self._is_news(head, failure)]
        if before.failures:
            view = replace(view, head=replace(head, attempts=self._with_failures(head, before.failures)))
        return view, before

    def _dooms(self, head: Head, plan: Plan) -> bool:
        """The plan ends what its probes have given up, and that is not on record: whoever finds the end must know the cause."""
        known = self._store.head(head.app)
        doomed = any(tried.probed is not None and tried.probed.doomed for tried in head.attempts.values())
        return doomed and known is not None and known.attempts != head.attempts and any(isinstance(a, Stop) for a in plan.actions)

    async def _carry_out(self, view: _View, plan: Plan) -> Done:
        """Carry out ``plan``; where that takes long, status says meanwhile how the app is, not how it was."""
        acting = asyncio.ensure_future(self._executor.carry_out(plan, view.head, view.drained))
        try:
            finished, _ = await asyncio.wait({acting}, timeout=SLOW_SECONDS)
            if not finished:
                await self._tell_meanwhile(view)
            return await acting
        finally:
            if not acting.done():
                acting.cancel()
                await asyncio.wait({acting})

    async def _tell_meanwhile(self, view: _View) -> None:
        known = self._store.head(view.head.app)
        health = self._assess(view, self._clock.boottime()).health
        if known is None or known.revision.revision != view.head.revision.revision or known.health.level <= health.level:
            return  # fetching has told already, or a newer revision came
        await self._store.record(
            replace(self._outcome(view, health, view.head.proven, Done()), exits=(), events=(), attempts=known.attempts)
        )

    def _is_news(self, head: Head, failure: Failure) -> bool:
        """The same failure again is not worth a row."""
        known = {head.attempts[replica].last_failure for replica in failure.replicas if replica in head.attempts}
        stuck = self._stuck.get(head.app)
        return failure.event.message not in known and (stuck is None or stuck.message != failure.event.message)

    async def _leave(self, app: str, done: Done) -> None:
        """The app is gone; what was done to its last instances still belongs into the history."""
        if done.events or done.exits:
            nothing = Health(0, Status.REMOVING, "")
            await self._store.record(Outcome(app, 0, nothing, exits=tuple(done.exits), events=tuple(done.events)))

    async def _record(self, view: _View, plan: Plan, done: Done) -> float | None:
        """Judge the app and commit what is new; an app that is as it was costs no commit."""
        head, now = view.head, self._clock.boottime()
        assessment = self._assess(view, now)
        retry = [tried.not_before.at for tried in head.attempts.values() if tried.not_before is not None and tried.not_before.at > now]
        if stuck := next((failure.event.message for failure in done.failures if not failure.replicas), ""):
            retry.append(now + self._again(head.app, stuck))
        else:
            self._stuck.pop(head.app, None)
        gone = head.revision.removed and not view.observed
        homes = {one.kind for one in view.observed} | ({head.revision.pkg.type} if plan.steps else set())
        outcome = replace(self._outcome(view, assessment.health, assessment.proven, done), homes=frozenset(homes), gone=gone)
        if self._news(outcome):
            await self._store.record(outcome)
        self._homes.pop(head.app, None)
        times = [at for at in (plan.wake_at, assessment.wake_at, *(retry if done.failures else ())) if at is not None]
        return min(times, default=None)

    def _outcome(self, view: _View, health: Health, proven: str, done: Done) -> Outcome:
        head = view.head
        return Outcome(
            app=head.app,
            revision=head.revision.revision,
            health=health,
            attempts=head.attempts,
            proven=proven,
            homes=head.homes | {one.kind for one in view.observed},
            exits=(*done.exits, *view.account.exits),  # of two words on one end the first counts: done knows why it was stopped
            events=(*view.account.events, *done.events),
        )

    def _news(self, outcome: Outcome) -> bool:
        head = self._store.head(outcome.app)
        if head is None:
            return False
        if outcome.exits or outcome.events or outcome.gone:
            return True
        known = (head.health, dict(head.attempts), head.proven, head.unknown_since, head.homes)
        return known != (outcome.health, dict(outcome.attempts), outcome.proven, outcome.unknown_since, outcome.homes)

    # --- looking ---------------------------------------------------------------------------------

    async def _observe(self, app: str, head: Head) -> list[Observed]:
        observed: list[Observed] = []
        for driver in self._homes_of(app, head):
            observed += await driver.observe(app)
        return observed

    def _homes_of(self, app: str, head: Head | None) -> set[Driver]:
        """The drivers that must answer before anything is planned for ``app``: where it is, has been, and shall be."""
        kinds = self._homes.get(app, set())
        if head is not None:
            kinds = kinds | head.homes | (set() if head.revision.removed else {head.revision.pkg.type})
        return {self._drivers[kind] for kind in kinds}

    def _view(self, head: Head, observed: Sequence[Observed]) -> _View:
        drained = self._store.drained
        head = drain.wanted(head, drained)
        account = ledger.enter(head, observed, self._moment(), self._clock.now(), self._probes.look(head, observed))
        return _View(replace(head, attempts=account.attempts, unknown_since=None), observed, account, drained)

    def _assess(self, view: _View, now: float) -> judge.Assessment:
        judged = judge.assess(view.head, view.observed, now)
        return replace(judged, health=drain.health(view.head, view.observed, judged.health, view.drained))

    async def _remnant(self, app: str) -> Head | None:
        """A head for instances that outlived the record of their removal: it wants them gone."""
        if app not in self._homes:
            return None
        try:
            observed = [one for driver in self._homes_of(app, None) for one in await driver.observe(app)]
        except Unavailable:
            return None
        newest = await self._store.newest(app)
        readable = next((one for one in observed if one.name.revision <= newest), None)
        if readable is None:
            del self._homes[app]
            return None
        try:
            carried = decode(readable.record)
        except Invalid:
            return None
        gone: Revision = replace(carried, revision=newest, kind="remove", submitted_by="an earlier removal")
        return Head(gone, Health(0, Status.REMOVING, "removing"), self._clock.now())

    # --- recording -------------------------------------------------------------------------------

    async def _record_unknown(self, head: Head, why: str, done: Done) -> float:
        """Nobody knows how the app is: say so, touch nothing, come again."""
        now = self._clock.boottime()
        since = (head.unknown_since or Deadline(now, 0.0, self._clock.boot_id)).rebased(self._clock.boot_id, now)
        assessment = judge.unknown(head, why, since.at, now)
        outcome = Outcome(
            app=head.app,
            revision=head.revision.revision,
            health=assessment.health,
            attempts=head.attempts,
            proven=head.proven,
            unknown_since=since,
            homes=head.homes,
            exits=tuple(done.exits),
            events=tuple(done.events),
        )
        if self._news(outcome):
            await self._store.record(outcome)
        return min(now + RETRY_SECONDS, assessment.wake_at or now + RETRY_SECONDS)

    async def _tell_fetching(self, head: Head, want: Instance) -> None:
        """Fetching may take long: status and history say so while it goes on."""
        if any(tried.last_failure for tried in head.attempts.values()):
            return  # what failed the last time is still what there is to say
        what = getattr(want.pkg, "image", "what it needs")
        health = Health(max(10, min(head.health.level, 50)), Status.DEPLOYING, f"fetching {what}")
        event = Event("Fetching", f"fetching {what} for {want.name}", head.app, want.name.revision)
        outcome = Outcome(head.app, head.revision.revision, health, head.attempts, head.proven, homes=head.homes, events=(event,))
        await self._store.record(outcome)

    def _with_failures(self, head: Head, failures: Sequence[Failure]) -> dict[int, Attempts]:
        attempts, moment = dict(head.attempts), self._moment()  # one for all, so that replicas that wait for one image ask for it together
        for failure in failures:
            for replica in failure.replicas:
                tried = attempts.get(replica) or Attempts(replica, head.revision.instance_hash)
                policy = head.revision.pkg.restart
                attempts[replica] = after_failure(tried, failure.event.message, policy, moment, hopeless=failure.hopeless)
        return attempts

    def _again(self, app: str, message: str) -> float:
        """Seconds until what would not stop or go is tried again: longer each time it fails alike."""
        before = self._stuck.get(app)
        times = before.times + 1 if before and before.message == message else 0
        self._stuck[app] = _Stuck(message, times)
        return delay_seconds(_STUCK_POLICY, times + 1, self._chance())

    def _forgets(self, head: Head) -> bool:
        return not self._drivers[head.revision.pkg.type].keeps_exits

    def _moment(self) -> Moment:
        return Moment(self._clock.boottime(), self._clock.boot_id, self._chance())

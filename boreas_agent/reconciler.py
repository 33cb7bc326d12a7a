"""Observe, plan, act, record: one app, one pass after another, until there is nothing left to do.

A pass holds no transaction while it acts. What it did and found is committed at its end, whole; what must not be
lost by acting (exits that the driver forgets) is committed before.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from msgspec import Struct
from msgspec.structs import replace

from boreas_agent import checking, drain, ledger, planner, rollout, schedule
from boreas_agent import health as judge
from boreas_agent.backoff import Moment, after_failure, delay_seconds
from boreas_agent.clock import Clock
from boreas_agent.deploying import MOST_APART_SECONDS, Deploying
from boreas_agent.drivers.base import Driver
from boreas_agent.errors import BoreasError, Unavailable
from boreas_agent.executor import Done, Executor, Failure
from boreas_agent.homes import Homes
from boreas_agent.meanwhile import Meanwhile
from boreas_agent.model import (
    Attempts,
    Deadline,
    Event,
    Head,
    Health,
    Observed,
    Plan,
    Prepare,
    Reload,
    Remove,
    Stage,
    Start,
    Status,
    Stop,
)
from boreas_agent.neighbours import Neighbours
from boreas_agent.probing import Probes, digest
from boreas_agent.spec import Restart, ScriptPkg
from boreas_agent.store.store import Store
from boreas_agent.store.values import Outcome
from boreas_agent.turns import Turns
from boreas_agent.view import View, is_news

log = logging.getLogger(__name__)

MAX_PASSES = 20
"""So many passes in a row at most; then the app waits like any other, however restless it is."""
BREATH_SECONDS = 1.0
_A_MOMENT = 0.01
"""Timers may be a little early; for a deadline that would be another round."""
RETRY_SECONDS = 5.0
"""When to look again at a driver that could not answer, or to try again to stop or remove what would not go."""


_STUCK_POLICY = Restart(initial_delay_seconds=RETRY_SECONDS, max_delay_seconds=60.0)


class _Stuck(Struct, frozen=True):
    """What could not be done for an app the last time, and how often in a row."""

    message: str
    times: int


class Reconciler:
    """Converges apps; keeps no state of its own beyond what may be forgotten."""

    def __init__(self, store: Store, drivers: Sequence[Driver], clock: Clock, chance: Callable[[], float], probes: Probes) -> None:
        self._store = store
        self._probes = probes
        self._drivers: Mapping[str, Driver] = {kind: driver for driver in drivers for kind in driver.kinds}
        self._clock = clock
        self._chance = chance
        self.homes = Homes(store, self._drivers, clock)
        self._stuck: dict[str, _Stuck] = {}
        self._deploying = Deploying(clock)
        self.turns = Turns(store, Neighbours(store, drivers, clock))
        self._meanwhile = Meanwhile(store, self._drivers, clock)
        self._executor = Executor(
            self._drivers.__getitem__, store, self._meanwhile.fetching, self._record_pre_started, self._deploying.patience
        )

    # --- one app ---------------------------------------------------------------------------------

    async def reconcile(self, app: str, seen: Sequence[Observed] | None = None) -> float | None:
        """Converge ``app``; returns the boot second at which to come again though nothing happens, or None.

        ``seen`` is what a survey has just found, to save another look. Raises CannotRecord.
        """
        done = Done()
        view: View | None = None
        for _ in range(MAX_PASSES):
            head = self._store.head(app) or await self.homes.remnant(app)
            if head is None:
                self._probes.forget(app)
                await self._leave(app, done)
                return None
            try:
                observed = seen if seen is not None else await self.homes.observe(app, head)
            except Unavailable as error:
                return await self._record_unknown(head, str(error), done)
            seen = None
            if any(one.revision > head.revision.revision for one in observed):
                await self.homes.adopt(app, observed)
                newest = self._store.head(app)
                if newest is None or newest.revision.revision <= head.revision.revision:
                    return await self._record_unknown(head, "an instance of a newer revision carries a record that cannot be read", done)
                continue
            view = self._view(head, observed)
            self._deploying.look(view.head, still=view.drained is not None)
            view, plan = await self._in_turn(view, self._plan(view))
            if plan.steps:
                view, done = await self._act(view, plan, done)
            if not plan.steps or done.failures:
                return await self._record(view, plan, done)
        if view is not None:
            await self._record(view, Plan(), done)
        return self._clock.boottime() + BREATH_SECONDS

    async def _act(self, view: View, plan: Plan, before: Done) -> tuple[View, Done]:
        """Carry out ``plan``; what acting would make unknowable is committed first. ``before``: done and not yet recorded."""
        head = view.head
        left = {name for name, _ in view.account.leftovers}
        started = {action.want.name for action in plan.actions if isinstance(action, Start)}
        removing = not left.isdisjoint(started) or plan.has(Reload | Remove)
        # Where a start may be answered by nobody tomorrow (the engine is away), it must be known today where to ask.
        kind = head.running.pkg.type
        settling_in = self._forgets(head) and kind not in head.homes and bool(started)
        if started:
            self.homes.expect(head.app, kind)
        succeeding = not started <= {one.name for one in view.observed}
        endings = view.account.leftovers if removing else ()
        if (
            endings
            or settling_in
            or self._must_be_known(head, plan)
            or (view.account.exits and (removing or succeeding or self._forgets(head)))
        ):
            before.exits += endings
            outcome = view.outcome(head.health, head.proven, before)
            outcome = replace(outcome, homes=outcome.homes | ({kind} if started else set()))
            await self._store.record(outcome)
            head = replace(head, homes=outcome.homes)
            view, before = replace(view.recorded(), head=head), Done()
        before.add(await self._carry_out(view, plan))
        if not before.failures and not before.superseded:
            self.turns.started(head, plan)
        before.events += [failure.event for failure in before.failures if self._is_news(head, failure)]
        if before.failures:
            failed = replace(head, attempts=self._with_failures(head, before.failures))
            view = replace(view, head=failed, waiting=None)  # what failed is more to say than what it would wait for
        if before.hooked:
            view, before = await self._record_hooked(view, before), Done(failures=before.failures, superseded=before.superseded)
        if before.answers:
            view, before = await self._take_answers(view, before), Done(failures=before.failures, superseded=before.superseded)
        return view, before

    async def _record_hooked(self, view: View, done: Done) -> View:
        """At once: what is not on record as done is done again by the next agent, and why an instance is stopped must be known before."""
        outcome = view.outcome(view.head.health, view.head.proven, done)
        hooked = {**view.account.hooked, **done.hooked}
        await self._store.record(replace(outcome, hooked=hooked))
        view = view.recorded()
        return replace(view, head=replace(view.head, hooked=hooked), account=replace(view.account, hooked=hooked))

    async def _take_answers(self, view: View, done: Done) -> View:
        """What checks have said is on record before anything follows from it."""
        attempts, pkg = dict(view.head.attempts), view.head.running.pkg
        for name, answer in done.answers:
            assert isinstance(pkg, ScriptPkg)
            tried = attempts.get(name.replica) or Attempts(name.replica, view.head.running.instance_hash)
            attempts[name.replica], said = checking.answered(tried, answer, pkg, self._moment())
            done.events += [Event(kind, f"{name}: {words}", name.app, name.revision) for kind, words in said]
        view = replace(view, head=replace(view.head, attempts=attempts))
        await self._store.record(view.outcome(view.head.health, view.head.proven, done))
        return view.recorded()

    def _must_be_known(self, head: Head, plan: Plan) -> bool:
        """The plan acts on something that is not on record, and without which whoever finds the effect would not know what it is.

        It ends what its probes or its time have given up, which is the cause of that end; or it begins a run for a scheduled time.
        """
        known = self._store.head(head.app)
        if known is None or known.attempts == head.attempts:
            return False
        tried = head.attempts.values()
        if plan.has(Stop):
            return any(one.overdue or (one.probed is not None and one.probed.doomed) for one in tried)
        return plan.has(Start) and any(one.turn is not None for one in tried)

    async def _carry_out(self, view: View, plan: Plan) -> Done:
        async with self._meanwhile.telling(view):
            return await self._executor.carry_out(
                plan, view.head, partial(self._meanwhile.doing, view), view.drained, partial(self._mark, view.head, plan)
            )

    def _mark(self, head: Head, plan: Plan) -> None:
        """Everything is here; from now on instances are started, or old ones stopped."""
        if plan.has(Reload | Start):
            self._deploying.mark(head, Stage.STARTING)
        elif any(isinstance(action, Stop) and action.seen.hash != head.running.instance_hash for action in plan.actions):
            self._deploying.mark(head, Stage.DRAINING)

    def _is_news(self, head: Head, failure: Failure) -> bool:
        """The same failure again is not worth a row."""
        known = {head.attempts[replica].last_failure for replica in failure.replicas if replica in head.attempts}
        stuck = self._stuck.get(head.app)
        return failure.event.message not in known and (stuck is None or stuck.message != failure.event.message)

    async def _leave(self, app: str, done: Done) -> None:
        """The app is gone; what was done to its last instances still belongs into the history."""
        self.turns.forget(app)
        self._deploying.forget(app)
        if done.events or done.exits:
            nothing = Health(0, Status.REMOVING, "")
            await self._store.record(Outcome(app, 0, nothing, exits=tuple(done.exits), events=tuple(done.events)))

    async def _record(self, view: View, plan: Plan, done: Done) -> float | None:
        """Judge the app and commit what is new; an app that is as it was costs no commit."""
        head, now = view.head, self._clock.boottime()
        assessment = view.assess(now)
        step = self._advance(view, assessment, done) if view.drained is None else None
        turned = step is not None and rollout.turns(head.deployment, step.deployment)
        if step is not None:
            head = replace(head, deployment=step.deployment)
            if turned:
                head = replace(head, attempts=ledger.standing(head, view.observed, digest(head.running.pkg), now))
                done.exits += view.account.leftovers  # from here on they count as told
            view = replace(view, head=head)
            assessment = view.assess(now)
            done.events += step.events
        done.events += self.turns.news(head, view.waiting)
        retry = [tried.not_before.at for tried in head.attempts.values() if tried.not_before is not None and tried.not_before.at > now]
        if stuck := next((failure.event.message for failure in done.failures if not failure.replicas), ""):
            retry.append(now + self._again(head.app, stuck))
        else:
            self._stuck.pop(head.app, None)
        gone = head.revision.removed and not view.observed
        homes = {one.kind for one in view.observed} | ({head.running.pkg.type} if plan.steps and not head.revision.removed else set())
        outcome = view.outcome(assessment.health, assessment.proven, done)
        outcome = replace(outcome, homes=frozenset(homes), gone=gone, deployment=head.deployment if step is not None else None)
        if gone or (step is not None and step.events):
            await self._collect({head.app: _kept(head)})
        if is_news(self._store.head(outcome.app), outcome):
            await self._store.record(outcome)
            self._deploying.committed(head)
        if gone:
            self._deploying.forget(head.app)
            self.turns.forget(head.app)
        self.homes.recorded(head.app)
        if turned:
            return now  # something else is to run
        left = None if view.waiting else rollout.seconds_left(replace(head, health=assessment.health))
        deadline = now + min(left + _A_MOMENT, MOST_APART_SECONDS) if left else None
        scheduled = None if view.drained is not None else self._next_run(head, now)
        times = [at for at in (plan.wake_at, assessment.wake_at, deadline, scheduled, *(retry if done.failures else ())) if at is not None]
        return min(times, default=None)

    def _next_run(self, head: Head, now: float) -> float | None:
        """When the next scheduled time comes, if nobody sets the wall clock meanwhile; where that is done, the resync finds out."""
        at = schedule.next_run(head.attempts.get(0), head.running) if head.hold is None else None
        return None if at is None else now + max(0.0, (at - self._clock.now()).total_seconds()) + _A_MOMENT

    def _advance(self, view: View, assessment: judge.Assessment, done: Done) -> rollout.Step | None:
        """What the pass means for the app's deployment."""
        if any(failure.unanswered for failure in done.failures):
            self._deploying.stand_still(view.head.app)
        head = self._gone_on(view.head)
        deployment, elapsed = self._deploying.now(head)
        permanent = [failure.event.message for failure in done.failures if failure.permanent]
        seen = rollout.look(head, view.observed, assessment, permanent)
        return rollout.advance(replace(head, deployment=deployment), seen, elapsed, self._clock.now())

    def _gone_on(self, head: Head) -> Head:
        """With its deployment as it is now: while fetching, and after its hook, it has gone on."""
        known = self._store.head(head.app)
        return head if known is None or known.revision is not head.revision else replace(head, deployment=known.deployment)

    async def collect(self) -> None:
        """Let drivers delete what no revision needs that may yet run."""
        await self._collect({app: _kept(head) for app, head in self._store.heads.items()})

    async def _collect(self, keep: Mapping[str, frozenset[int]]) -> None:
        for driver in set(self._drivers.values()):
            try:
                await driver.collect(keep)
            except BoreasError as error:  # room is nothing that an app should wait for
                log.warning("cannot delete what is not needed any more", extra={"error": str(error)})

    # --- looking ---------------------------------------------------------------------------------

    def _view(self, head: Head, observed: Sequence[Observed]) -> View:
        drained = self._store.drained
        head = drain.wanted(head, drained)
        probed, still = self._probes.look(head, observed), drained is not None
        account = ledger.enter(head, observed, self._moment(), self._clock.now(), probed, drained=still)
        if account.attempts != head.attempts or head.unknown_since is not None:
            head = replace(head, attempts=account.attempts, unknown_since=None)
        return View(head, observed, account, drained)

    def _plan(self, view: View) -> Plan:
        now = self._clock.boottime()
        running = view.head.running
        settled = all(seen.hash == running.instance_hash and seen.name.replica < running.wanted for seen in view.observed)
        # Then nothing that is there waits for what is ready.
        planned = planner.plan(view.head, view.observed, now, () if settled else judge.assess(view.head, view.observed, now).ready)
        return drain.plan(view.head, planned, view.drained)

    async def _in_turn(self, view: View, planned: Plan) -> tuple[View, Plan]:
        """What of the plan may be done now; the rest waits for other apps, and meanwhile the time of the deployment stands still."""
        epoch = self._drivers[view.head.running.pkg.type].epoch
        plan, waiting = await self.turns.take(view.head, view.observed, planned, view.drained, epoch)
        if waiting is None:
            return view, plan
        self._deploying.stand_still(view.head.app)
        here = [action for action in plan.actions if isinstance(action, Prepare) and await self._is_here(action)]
        return replace(view, waiting=waiting), plan.only(lambda action: action not in here)

    async def _is_here(self, action: Prepare) -> bool:
        """Whether there is nothing to fetch; where nobody can say, fetching will tell."""
        try:
            return await self._drivers[action.want.pkg.type].prepared(action.want)
        except BoreasError:
            return False

    # --- recording -------------------------------------------------------------------------------

    async def _record_unknown(self, head: Head, why: str, done: Done) -> float:
        """Nobody knows how the app is: say so, touch nothing, come again."""
        self._deploying.stand_still(head.app)
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
        if is_news(self._store.head(outcome.app), outcome):
            await self._store.record(outcome)
        return min(now + RETRY_SECONDS, assessment.wake_at or now + RETRY_SECONDS)

    async def _record_pre_started(self, head: Head, event: Event) -> None:
        """Before anything is done that follows the hook, so that it has run once for all that does."""
        known = self._store.head(head.app)
        if known is None or known.deployment is None or known.revision.revision != head.revision.revision:
            return
        outcome = Outcome(known.app, known.revision.revision, known.health, known.attempts, known.proven, known.unknown_since, known.homes)
        deployment = replace(known.deployment, pre_started=True)
        await self._store.record(replace(outcome, deployment=deployment, events=(event,)))

    async def lost(self, app: str, why: str) -> None:
        """A pass over ``app`` broke off, so what is on record of it may hold no longer. Raises CannotRecord."""
        if (head := self._store.head(app)) is not None:
            await self._record_unknown(head, why, Done())

    def _with_failures(self, head: Head, failures: Sequence[Failure]) -> dict[int, Attempts]:
        attempts, moment = dict(head.attempts), self._moment()  # one for all, so that replicas that wait for one image ask for it together
        for failure in failures:
            for replica in failure.replicas:
                tried = attempts.get(replica) or Attempts(replica, head.running.instance_hash)
                policy = head.running.pkg.restart
                attempts[replica] = after_failure(tried, failure.event.message, policy, moment, hopeless=failure.hopeless)
        return attempts

    def _again(self, app: str, message: str) -> float:
        """Seconds until what would not stop or go is tried again: longer each time it fails alike."""
        before = self._stuck.get(app)
        times = before.times + 1 if before and before.message == message else 0
        self._stuck[app] = _Stuck(message, times)
        return delay_seconds(_STUCK_POLICY, times + 1, self._chance())

    def _forgets(self, head: Head) -> bool:
        return not self._drivers[head.running.pkg.type].keeps_exits

    def _moment(self) -> Moment:
        return Moment(self._clock.boottime(), self._clock.boot_id, self._chance())


def _kept(head: Head) -> frozenset[int]:
    """The revisions that may yet run: the desired one, the one that is to run now, and the last good one; none of an app that goes."""
    if head.revision.removed:
        return frozenset()
    good = {head.good.revision.revision} if head.good else set()
    return frozenset({head.revision.revision, head.running.revision, *good})

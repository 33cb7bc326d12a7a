"""The real store and reconciler on a simulated world: deterministic, in steps, and mortal."""

from __future__ import annotations

import asyncio
import functools
import tempfile
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

from boreas_agent.backoff import given_up
from boreas_agent.errors import Conflict, NotFound
from boreas_agent.health import GOOD, assess
from boreas_agent.model import Head, Observed, Phase, Stage, Status
from boreas_agent.neighbours import Neighbours
from boreas_agent.planner import plan
from boreas_agent.reconciler import Reconciler
from boreas_agent.rollout import seconds_left
from boreas_agent.spec import Pkg, parse_submission
from boreas_agent.store.store import Store
from boreas_agent.store.values import Outcome, Receipt
from tests.world import Crash, FakeClock, FakeDriver, FakeProber, Thing, World

T = TypeVar("T")
DOCKER, PROCESS = frozenset({"docker"}), frozenset({"binary", "script"})


def package(kind: str, **more: Any) -> dict[str, Any]:
    """A small pkg of that kind."""
    what = {"docker": {"image": "x:1"}, "binary": {"command": ["/bin/app"]}, "script": {"command": ["true"]}}
    return {"type": kind, **what[kind], **more}


@functools.cache
def migrated() -> bytes:
    """An empty database of today's schema, for tests of something else than migrating."""
    with tempfile.TemporaryDirectory() as folder:
        Simulation(Path(folder)).close()
        return (Path(folder) / "agent.db").read_bytes()


def hooks() -> dict[str, Any]:
    """All three, as the world knows them."""
    return {"hooks": {kind: {"exec": {"command": ["hook", kind]}} for kind in ("pre_start", "post_start", "pre_stop")}}


class Simulation:
    """One agent at a time on one world and one database. Not for production: it has no event loop of its own life."""

    def __init__(self, folder: Path, template: bytes | None = None) -> None:
        self.clock = FakeClock()
        self.world = World(self.clock)
        self.database = folder / "agent.db"
        if template is not None:
            self.database.write_bytes(template)
        self.loop = asyncio.new_event_loop()
        self.acknowledged: dict[str, int] = {}
        self.world.allows = self._in_order
        self.start()

    # --- the agent's life ------------------------------------------------------------------------

    def start(self) -> None:
        """A new agent on what the last one left."""
        self.store = self.run(Store.open(self.database, self.clock))
        self.drivers = (FakeDriver(self.world, DOCKER), FakeDriver(self.world, PROCESS))
        self.prober = FakeProber(self.world)
        mortal: Any = _Mortal(self.store, self.world)
        self.neighbours = Neighbours(self.store, self.drivers, self.clock)
        self.reconciler = Reconciler(mortal, self.drivers, self.clock, lambda: 0.0, self.prober)

    def kill(self) -> None:
        """The agent dies: of its memory nothing is left."""
        self.run(self.store.close())

    def close(self) -> None:
        """End of the simulation."""
        self.kill()
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.loop.close()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run one coroutine of the agent to its end."""
        return self.loop.run_until_complete(work)

    def mortally(self, work: Callable[[], T]) -> T | None:
        """Run ``work``; where the agent dies in it, start the next one."""
        try:
            return work()
        except Crash:
            self.kill()
            self.start()
            return None

    # --- what users do ---------------------------------------------------------------------------

    def apply(self, app: str, version: str, *, force: bool = False, **pkg: Any) -> Receipt:
        """Submit and remember that it was acknowledged."""
        body = {"app": app, "version": version, "pkg": pkg, "force": force}
        submission = parse_submission(body)
        receipt = self.run(self.store.apply(submission, "test"))
        self.acknowledged[app] = receipt.revision
        self._spare(app)
        return receipt

    def roll_back(self, app: str, to: int | None = None) -> Receipt | None:
        """Go back, if there is something to go back to."""
        try:
            receipt = self.run(self.store.rollback(app, to, "test"))
        except (NotFound, Conflict):
            return None
        self.acknowledged[app] = receipt.revision
        self._spare(app)
        return receipt

    def _spare(self, app: str) -> None:
        """Of an app that is rolled out start-first the agent may not stop the last instance."""
        wanted = self.store.heads[app].revision
        spared = wanted.pkg.rollout.strategy == "start-first" and wanted.wanted > 0
        (self.world.spared.add if spared else self.world.spared.discard)(app)

    def remove(self, app: str) -> None:
        """Ask for removal, if there is something to remove."""
        try:
            self.acknowledged[app] = self.run(self.store.remove(app, "test")).revision
            self.world.spared.discard(app)
        except NotFound:
            return

    # --- time ------------------------------------------------------------------------------------

    def tick(self) -> None:
        """One resync: ask every probe, look at everything, reconcile every app. May raise Crash."""
        self.prober.ask()

        async def resync() -> None:
            seen: dict[str, Any] = {}
            async for part in self.reconciler.homes.survey():
                seen |= part
            for app in sorted({*seen, *self.store.heads}):
                await self.reconciler.reconcile(app, seen.get(app))

        self.run(resync())

    def settle(self, ticks: int = 40) -> None:
        """Let time pass without faults until nothing is left to do; fails where that takes too long."""
        for _ in range(ticks):
            self.tick()
            if self.quiet():
                return
            self.clock.advance(11.0)
        pending = {app: head.health for app, head in self.store.heads.items()}
        raise AssertionError(f"not converged after {ticks} ticks: {pending}, {self.world.things}")

    def quiet(self) -> bool:
        """Every plan is empty and no verdict waits for time."""
        now = self.clock.boottime()
        for app, head in self.store.heads.items():
            observed = self.observed(app)
            if self.waits(app):
                continue
            if seconds_left(head) is not None and not self._script_runs(head):
                return False  # its deployment, or the watch over it, has not come to an end
            judged = assess(head, observed, now)
            if judged.health.level < GOOD and judged.wake_at is not None and self.alive(app):
                return False  # it runs again and has to prove itself
            if self.alive(app) and any(tried.probed is not None and not tried.probed.ready for tried in head.attempts.values()):
                return False  # its probes are still to be asked, or asked again
            endless = head.revision.pkg.type == "script" or (app, head.running.version) in self.world.programs
            failed = head.deployment is not None and head.deployment.stage is Stage.FAILED
            if (head.health.status is Status.FAILED or failed) and endless:
                continue  # a crash loop goes on for ever, and that is right
            if _never_rests(head.revision.pkg) and head.health.status in (Status.COMPLETED, Status.RUNNING):
                continue  # there is always another check, another scheduled time
            now_and_later = [plan(head, observed, at, judged.ready) for at in (now, now + 1e6)]
            if head.hold is None and (now_and_later[0] != now_and_later[1] or now_and_later[0].steps):
                return False
            if judged.health != head.health or head.health.status is Status.REMOVING:
                return False
            if head.health.status in (Status.PENDING, Status.DEPLOYING) and head.hold is None:
                return False
        return True

    def waits(self, app: str) -> bool:
        """It waits for others, and says so in words that are still right."""
        lacking = self.run(self.neighbours.lacking(self.store.heads[app]))
        return bool(lacking) and lacking in self.store.heads[app].health.msg

    def _in_order(self, thing: Thing) -> None:
        """What begins and is new has all that it depends on; by what is really there, not by what the agent thinks of it."""
        head = self.store.heads.get(thing.name.app)
        for need in head.running.pkg.depends_on if head and head.running.instance_hash == thing.hash else ():
            other = self.store.heads.get(need.app)
            assert other is not None, f"{thing.name} began without {need.app}"
            assert not other.revision.removed, f"{thing.name} began without {need.app}, which is being removed"
            wanted = other.running
            there = [one for one in self.world.things.values() if one.name.app == need.app and one.hash == wanted.instance_hash]
            ended = {one.name.replica for one in there if one.kind == "script" and one.exits and one.exits[-1].code == 0}
            done = ended | {one.name.replica for one in there if one.settled}
            if getattr(wanted.pkg, "schedule", None) is not None and (not any(one.exits for one in there) or _is_tried_again(other)):
                done.add(0)  # its first time has not come, or what it comes to is not known yet
            up = {one.name.replica for one in there if one.phase is Phase.RUNNING}
            right = done if need.condition == "completed" else done | up
            assert wanted.wanted, f"{thing.name} began without {need.app}, which is stopped"
            assert right >= set(range(wanted.wanted)), f"{thing.name} began before {need.app} was {need.condition}: {there}"

    def _script_runs(self, head: Head) -> bool:
        return head.revision.pkg.type == "script" and self.alive(head.app) > 0

    def observed(self, app: str) -> list[Observed]:
        """What the drivers see of ``app``."""
        return [one for driver in self.drivers for one in self.run(driver.observe(app))]

    def shape(self) -> list[str]:
        """What runs, as sorted lines."""
        return sorted(f"{thing.name} {thing.phase}" for thing in self.world.things.values())

    def alive(self, app: str) -> int:
        """How many instances of ``app`` run."""
        return sum(thing.phase is Phase.RUNNING for thing in self.world.running(app))


def _is_tried_again(head: Head) -> bool:
    """A run of a script has failed, and what its turn comes to is not known before the last attempt at it."""
    tried = head.attempts.get(0)
    return tried is not None and tried.last_exit is not None and not tried.last_exit.ok and not given_up(tried, head.running.pkg)


def _never_rests(pkg: Pkg) -> bool:
    return pkg.type == "script" and (pkg.check is not None or pkg.schedule is not None)


class _Mortal:
    """The store, with a chance to die before and after each commit of the reconciler."""

    def __init__(self, store: Store, world: World) -> None:
        self._store = store
        self._world = world

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def record(self, outcome: Outcome) -> None:
        self._world.step(f"before commit of {outcome.app}")
        await self._store.record(outcome)
        head = self._store.head(outcome.app)
        if head is not None:
            self._world.hooked |= {(head.app, run) for run, failed in head.hooked.items() if not failed}
        if head is not None and head.fallback is not None and head.running.pkg.rollout.strategy == "recreate":
            self._world.spared.discard(outcome.app)  # what is gone back to may have no room beside anything else
        self._world.step(f"after commit of {outcome.app}")

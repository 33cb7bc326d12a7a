"""The real store and reconciler on a simulated world: deterministic, in steps, and mortal."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

from boreas_agent.errors import NotFound
from boreas_agent.health import assess
from boreas_agent.model import Observed, Phase, Status
from boreas_agent.planner import plan
from boreas_agent.reconciler import Reconciler
from boreas_agent.spec import parse_submission
from boreas_agent.store.store import Store
from boreas_agent.store.values import Outcome, Receipt
from tests.world import Crash, FakeClock, FakeDriver, FakeProber, World

T = TypeVar("T")
DOCKER, PROCESS = frozenset({"docker"}), frozenset({"binary", "script"})


def package(kind: str, **more: Any) -> dict[str, Any]:
    """A small pkg of that kind."""
    what = {"docker": {"image": "x:1"}, "binary": {"command": ["/bin/app"]}, "script": {"command": ["true"]}}
    return {"type": kind, **what[kind], **more}


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
        self.start()

    # --- the agent's life ------------------------------------------------------------------------

    def start(self) -> None:
        """A new agent on what the last one left."""
        self.store = self.run(Store.open(self.database, self.clock))
        self.drivers = (FakeDriver(self.world, DOCKER), FakeDriver(self.world, PROCESS))
        self.prober = FakeProber(self.world)
        mortal: Any = _Mortal(self.store, self.world)
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
        receipt = self.run(self.store.apply(parse_submission(body), "test"))
        self.acknowledged[app] = receipt.revision
        return receipt

    def remove(self, app: str) -> None:
        """Ask for removal, if there is something to remove."""
        try:
            self.acknowledged[app] = self.run(self.store.remove(app, "test")).revision
        except NotFound:
            return

    # --- time ------------------------------------------------------------------------------------

    def tick(self) -> None:
        """One resync: ask every probe, look at everything, reconcile every app. May raise Crash."""
        self.prober.ask()

        async def resync() -> None:
            seen: dict[str, Any] = {}
            async for part in self.reconciler.survey():
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
            endless = head.revision.pkg.type == "script" or (app, head.revision.version) in self.world.programs
            if head.health.status is Status.FAILED and endless:
                continue  # a crash loop goes on for ever, and that is right
            if head.hold is None and (plan(head, observed, now) != plan(head, observed, now + 1e6) or plan(head, observed, now).steps):
                return False
            if assess(head, observed, now).health != head.health or head.health.status is Status.REMOVING:
                return False
            if head.health.status in (Status.PENDING, Status.DEPLOYING) and head.hold is None:
                return False
        return True

    def observed(self, app: str) -> list[Observed]:
        """What the drivers see of ``app``."""
        return [one for driver in self.drivers for one in self.run(driver.observe(app))]

    def shape(self) -> list[str]:
        """What runs, as sorted lines."""
        return sorted(f"{thing.name} {thing.phase}" for thing in self.world.things.values())

    def alive(self, app: str) -> int:
        """How many instances of ``app`` run."""
        return sum(thing.phase is Phase.RUNNING for thing in self.world.running(app))


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
        self._world.step(f"after commit of {outcome.app}")

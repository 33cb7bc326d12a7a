"""Whatever users, faults and time do, in whatever order: nothing forbidden ever happens, and once faults stop, all converges."""

from __future__ import annotations

import functools
import sqlite3
import tempfile
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from boreas_agent.model import InstanceName, Phase, Status
from boreas_agent.probe_spec import KINDS
from boreas_agent.spec import max_attempts
from tests.simulation import Simulation, package
from tests.world import Thing

apps = st.sampled_from(["a", "b"])
kinds = st.sampled_from(["docker", "binary", "script"])
versions = st.sampled_from(["v1", "v2", "bad"])


@functools.cache
def _migrated() -> bytes:
    """An empty database of today's schema: migrating is not what is tested here."""
    with tempfile.TemporaryDirectory() as folder:
        Simulation(Path(folder)).close()
        return (Path(folder) / "agent.db").read_bytes()


class Machine(RuleBasedStateMachine):
    """Users and faults on the simulated world. The world itself asserts what no effect may do (see ``World.begin``)."""

    @initialize()
    def begin(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.sim = Simulation(Path(self.folder.name), _migrated())
        for app in ("a", "b"):
            self.sim.world.programs[app, "bad"] = 3
        self.foreign = Thing(InstanceName("postgres", 1, 0), "docker", "v1", "h", "{}", "someone else", Phase.RUNNING, 1, 1.0)
        self.sim.world.things[self.foreign.name] = self.foreign

    @rule(app=apps, version=versions, kind=kinds, replicas=st.integers(0, 3), force=st.booleans(), probes=st.sets(st.sampled_from(KINDS)))
    def apply(self, app: str, version: str, kind: str, replicas: int, *, force: bool, probes: set[str]) -> None:
        count = min(replicas, 1) if kind == "script" else replicas
        health = {name: {"tcp": {"port": 80}} for name in probes}
        self.sim.apply(app, version, force=force, **package(kind, replicas=count, health=health))

    @rule(app=apps, kind=st.sampled_from(KINDS), sick=st.booleans())
    def probes_begin_or_cease_to_fail(self, app: str, kind: Any, sick: bool) -> None:
        (self.sim.world.sick.add if sick else self.sim.world.sick.discard)((app, kind))

    @rule(app=apps)
    def remove(self, app: str) -> None:
        self.sim.remove(app)

    @rule(app=apps)
    def restart(self, app: str) -> None:
        head = self.sim.store.head(app)
        if head is not None and not head.revision.removed:
            self.sim.acknowledged[app] = self.sim.run(self.sim.store.restart(app, "test")).revision

    @rule(app=apps, held=st.booleans())
    def hold_or_release(self, app: str, held: bool) -> None:
        if self.sim.store.head(app) is not None:
            store = self.sim.store
            self.sim.run(store.hold(app, "test", "debugging", None) if held else store.release(app, "test"))

    @rule(drained=st.booleans())
    def node_is_drained_or_not(self, drained: bool) -> None:
        store = self.sim.store
        self.sim.run(store.drain("test", "") if drained else store.undrain("test"))

    @precondition(lambda self: self.sim.store.drained is not None)
    @rule()
    def a_drained_node_starts_nothing(self) -> None:
        before = self.runs()
        self.sim.tick()
        assert self.runs() <= before

    def runs(self) -> set[tuple[InstanceName, int]]:
        """What has been started and has not ended."""
        return {(thing.name, thing.run) for thing in self.sim.world.things.values() if thing.phase in (Phase.RUNNING, Phase.PAUSED)}

    @rule(choice=st.integers(0, 5), how=st.sampled_from(["SIGKILL", 0, 1, "remove", "pause", "rename"]))
    def someone_meddles(self, choice: int, how: Any) -> None:
        ours = [thing for thing in self.sim.world.things.values() if thing.phase is Phase.RUNNING and thing is not self.foreign]
        if not ours:
            return
        thing = ours[choice % len(ours)]
        match how:
            case "remove" if thing.kind == "docker":
                del self.sim.world.things[thing.name]
                self.sim.world.ended = {one for one in self.sim.world.ended if one[0] != thing.name}  # nobody can know any more
            case "pause":
                thing.phase = Phase.PAUSED
            case "rename":
                thing.misnamed = True
            case int():
                self.sim.world.end(thing, code=how)
            case _:
                self.sim.world.end(thing, signal="SIGKILL")

    @rule(kind=st.sampled_from(["docker", "binary"]), away=st.booleans())
    def driver_goes_or_comes(self, kind: str, away: bool) -> None:
        (self.sim.world.away.add if away else self.sim.world.away.discard)(kind)

    @rule(app=apps, version=versions, missing=st.booleans())
    def image_goes_or_comes(self, app: str, version: str, missing: bool) -> None:
        (self.sim.world.missing.add if missing else self.sim.world.missing.discard)((app, version))

    @rule(seconds=st.sampled_from([0.1, 1.0, 5.0, 30.0, 100.0]))
    def time_passes(self, seconds: float) -> None:
        self.sim.clock.advance(seconds)

    @rule(hours=st.sampled_from([-24, -1, 1, 1000]))
    def wall_clock_jumps(self, hours: int) -> None:
        self.sim.clock.wall += timedelta(hours=hours)

    @rule()
    def machine_reboots(self) -> None:
        self.sim.kill()
        self.sim.world.reboot()
        self.sim.start()

    @rule()
    def tick(self) -> None:
        self.sim.tick()

    @rule(steps=st.integers(1, 12))
    def agent_dies_in_the_middle(self, steps: int) -> None:
        self.sim.world.crash_at = self.sim.world.steps + steps
        self.sim.mortally(self.sim.tick)
        self.sim.world.crash_at = None

    @rule()
    def agent_dies(self) -> None:
        self.sim.kill()
        self.sim.start()

    @invariant()
    def nothing_acknowledged_is_lost(self) -> None:
        for app, revision in self.sim.acknowledged.items():
            assert self.sim.run(self.sim.store.newest(app)) == revision

    @invariant()
    def what_is_foreign_is_untouched(self) -> None:
        assert self.sim.world.things[self.foreign.name] is self.foreign
        assert (self.foreign.phase, self.foreign.run) == (Phase.RUNNING, 1)

    @invariant()
    def a_script_runs_at_most_as_often_as_it_may(self) -> None:
        for (app, _), runs in self.sim.world.runs.items():
            assert len(runs) <= (max_attempts(self.sim.store.heads[app].revision.pkg) or 3 if app in self.sim.store.heads else 3), runs

    @invariant()
    def a_level_of_80_is_never_claimed_for_what_was_seen_dead(self) -> None:
        for app, head in self.sim.store.heads.items():
            if head.health.level == 100 and head.health.status is Status.RUNNING:
                assert head.proven == head.revision.instance_hash, app

    @invariant()
    def what_is_said_to_serve_has_passed_its_probes(self) -> None:
        for app, head in self.sim.store.heads.items():
            if head.health.level >= 80 and head.health.status is Status.RUNNING and head.unknown_since is None:
                found = [tried.probed for tried in head.attempts.values() if tried.probed is not None]
                assert all(one.ready and not one.doomed for one in found), (app, head)

    def teardown(self) -> None:
        if not hasattr(self, "sim"):
            return
        try:
            self.faults_stop_and_all_converges()
        finally:
            self.sim.close()
            self.folder.cleanup()

    def faults_stop_and_all_converges(self) -> None:
        """Liveness: a bounded number of ticks leads to empty plans."""
        self.sim.world.away.clear()
        self.sim.world.missing.clear()
        self.sim.run(self.sim.store.undrain("test"))
        self.sim.world.sick.clear()
        for app in list(self.sim.store.heads):
            self.sim.run(self.sim.store.release(app, "test"))
        for thing in list(self.sim.world.things.values()):
            if thing.kind == "script" and thing.phase in (Phase.RUNNING, Phase.PAUSED) and thing is not self.foreign:
                self.sim.world.end(thing, code=0)
        self.sim.settle(80)
        self.every_end_is_on_record_once()
        for app, head in self.sim.store.heads.items():
            if head.revision.pkg.type == "script":
                continue  # it may still run, or have ended in either way
            wanted = head.revision.pkg.replicas if head.revision.version != "bad" else 0
            assert self.sim.alive(app) == wanted, (head, self.sim.shape())

    def every_end_is_on_record_once(self) -> None:
        """Of every run that ended, also if it was stopped, and wherever the agent died meanwhile."""
        there = {(thing.name, one.run) for thing in self.sim.world.things.values() for one in thing.exits}
        for app in ("a", "b"):
            with closing(sqlite3.connect(self.sim.database)) as database:
                rows = database.execute("SELECT revision, replica, run FROM exits WHERE app = ?", (app,)).fetchall()
            known = [(InstanceName(app, revision, replica), run) for revision, replica, run in rows]
            assert len(known) == len(set(known)), known
            missing = {one for one in self.sim.world.ended if one[0].app == app} - set(known) - there
            assert not missing, missing


TestSimulation = Machine.TestCase
TestSimulation.settings = settings(max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck))

"""Whatever users, faults and time do, in whatever order: nothing forbidden ever happens, and once faults stop, all converges."""

from __future__ import annotations

import sqlite3
import tempfile
from collections import Counter
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any, get_args

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from boreas_agent.errors import Invalid
from boreas_agent.model import Head, InstanceName, Phase, Stage, Status
from boreas_agent.spec import max_attempts
from boreas_agent.spec.probes import ProbeKind
from tests.simulation import Simulation, hooks, migrated, package
from tests.world import Thing

KINDS = get_args(ProbeKind)
apps = st.sampled_from(["a", "b"])
kinds = st.sampled_from(["docker", "binary", "script"])
versions = st.sampled_from(["v1", "v2", "bad"])
needs = st.none() | st.sampled_from(["running", "healthy", "completed"])
strategies = st.sampled_from(["recreate", "start-first"])
contents = st.sampled_from(["x", "y", "deadly"])
WAYS: dict[str, dict[str, Any]] = {
    "once": {},
    "checked": {"check": "test -e /f", "check_interval_seconds": 20},
    "scheduled": {"schedule": "* * * * *"},
    "queued": {"schedule": {"cron": "*/20 * * * * *", "overlap": "queue", "starting_deadline_seconds": 30}},
    "timed": {"timeout_seconds": 25},
}
"""In which scripts run, and run again."""


class Machine(RuleBasedStateMachine):
    """Users and faults on the simulated world. The world itself asserts what no effect may do (see ``World.begin``)."""

    @initialize()
    def begin(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.sim = Simulation(Path(self.folder.name), migrated())
        for app in ("a", "b"):
            self.sim.world.programs[app, "bad"] = 3
        self.sim.world.indigestible.add("deadly")
        self.blocked: dict[str, tuple[int | None, int]] = {}
        self.foreign = Thing(InstanceName("postgres", 1, 0), "docker", "v1", "h", "{}", "someone else", Phase.RUNNING, 1, 1.0)
        self.sim.world.things[self.foreign.name] = self.foreign

    @rule(
        app=apps,
        version=versions,
        kind=kinds,
        replicas=st.integers(0, 3),
        force=st.booleans(),
        probes=st.sets(st.sampled_from(KINDS)),
        strategy=strategies,
        need=needs,
    )
    def apply(
        self, app: str, version: str, kind: str, replicas: int, *, force: bool, probes: set[str], strategy: str, need: str | None = None
    ) -> None:
        count = min(replicas, 1) if kind == "script" else replicas
        more: dict[str, Any] = {"health": {name: {"exec": {"command": ["/bin/true"]}} for name in probes}}
        if version != "v1" and kind != "script":
            more |= hooks()
        if need is not None:
            more["depends_on"] = [{"app": "b" if app == "a" else "a", "condition": need}]
        if kind != "script":
            more["rollout"] = {"strategy": strategy}
        if kind == "docker" and strategy == "recreate" and count <= 1:
            more["ports"] = [{"host": 80, "container": 80}]
        try:
            self.sim.apply(app, version, force=force, **package(kind, replicas=count, **more))
        except Invalid as error:
            assert need is not None and "would wait for itself" in str(error)

    @rule(app=apps, version=versions, way=st.sampled_from(sorted(WAYS)))
    def apply_script(self, app: str, version: str, way: str) -> None:
        self.sim.apply(app, version, **package("script", **WAYS[way]))

    @rule(
        app=apps,
        version=versions,
        kind=st.sampled_from(["docker", "binary"]),
        content=contents,
        replicas=st.integers(1, 3),
        strategy=strategies,
    )
    def apply_file(self, app: str, version: str, kind: str, content: str, replicas: int, *, strategy: str) -> None:
        file = {"path": "/conf" if kind == "docker" else "conf", "content": content, "on_change": "signal"}
        more = hooks() if version == "v2" else {}
        self.sim.apply(app, version, **package(kind, replicas=replicas, files=[file], rollout={"strategy": strategy}, **more))

    @rule(app=apps, kind=st.sampled_from(["docker", "binary"]), more=st.lists(contents, min_size=2, max_size=4), strategy=strategies)
    def a_file_gets_its_time_and_then_other_ones_come(self, app: str, kind: str, more: list[str], strategy: str) -> None:
        for content in more:
            self.apply_file(app, "v1", kind, content, 2, strategy=strategy)
            self.a_quiet_while()

    @rule(app=apps, full=st.booleans())
    def the_disk_is_full_or_has_room(self, app: str, full: bool) -> None:
        (self.sim.world.full.add if full else self.sim.world.full.discard)(app)

    @rule(app=apps, state=st.sampled_from([0, 1, 3]))
    def the_world_drifts(self, app: str, state: int) -> None:
        self.sim.world.states[app] = state

    @rule(app=apps, mute=st.booleans())
    def checks_cannot_be_asked_or_can(self, app: str, mute: bool) -> None:
        (self.sim.world.mute.add if mute else self.sim.world.mute.discard)(app)

    @rule(app=apps, to=st.none() | st.integers(1, 4))
    def roll_back(self, app: str, to: int | None) -> None:
        self.sim.roll_back(app, to)

    @rule(app=apps, version=versions, kind=st.sampled_from(KINDS), sick=st.booleans())
    def probes_begin_or_cease_to_fail(self, app: str, version: str, kind: Any, sick: bool) -> None:
        (self.sim.world.sick.add if sick else self.sim.world.sick.discard)((app, version, kind))

    @rule(app=apps, kind=st.sampled_from(["pre_start", "post_start", "pre_stop"]), refusing=st.booleans())
    def hooks_begin_or_cease_to_fail(self, app: str, kind: str, refusing: bool) -> None:
        (self.sim.world.refusing.add if refusing else self.sim.world.refusing.discard)((app, kind))

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
        self.sim.world.drained = drained
        self.sim.world.familiar.clear()

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

    @rule()
    def a_quiet_while(self) -> None:
        for _ in range(3):
            self.sim.tick()
            self.sim.clock.advance(11)

    @rule(
        app=apps,
        kind=st.sampled_from(["docker", "binary"]),
        replicas=st.integers(1, 3),
        good=st.booleans(),
        strategy=strategies,
        probes=st.sets(st.sampled_from(KINDS)),
    )
    def a_version_gets_its_time_and_then_a_bad_one_comes(
        self, app: str, kind: str, replicas: int, *, good: bool, strategy: str, probes: set[str]
    ) -> None:
        self.apply(app, "v1" if good else "bad", kind, replicas, force=False, probes=probes, strategy=strategy)
        self.a_quiet_while()
        self.apply(app, "bad", kind, replicas, force=False, probes=probes, strategy=strategy)

    @precondition(lambda self: any(head.fallback for head in self.sim.store.heads.values()))
    @rule()
    def a_blocked_version_is_applied_again(self) -> None:
        for app, head in self.sim.store.heads.items():
            if head.fallback is not None:
                receipt = self.sim.apply(app, head.revision.version, **head.revision.pkg.canonical_form)
                assert (receipt.changed, receipt.revision) == (False, head.revision.revision)

    @rule(app=apps, version=st.sampled_from(["v1", "v2"]), broken=st.booleans())
    def what_it_needs_is_missing_or_there(self, app: str, version: str, broken: bool) -> None:
        if broken:
            self.sim.world.programs[app, version] = 9
        else:
            self.sim.world.programs.pop((app, version), None)

    @rule(app=apps)
    def all_of_it_falls_over(self, app: str) -> None:
        for thing in self.sim.world.running(app):
            if thing.kind != "script":
                self.sim.world.end(thing, code=9)

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
        for (app, revision), runs in self.sim.world.runs.items():
            if (app, revision) in self.sim.world.again:
                continue
            assert len(runs) <= (max_attempts(self.sim.store.heads[app].revision.pkg) or 3 if app in self.sim.store.heads else 3), runs

    @invariant()
    def no_scheduled_time_is_run_for_twice(self) -> None:
        query = "SELECT app, revision, scheduled_at FROM v_runs WHERE outcome = 'succeeded' AND scheduled_at IS NOT NULL"
        with closing(sqlite3.connect(self.sim.database)) as database:
            times = database.execute(query).fetchall()
        assert len(times) == len(set(times)), times

    @invariant()
    def a_level_of_80_is_never_claimed_for_what_was_seen_dead(self) -> None:
        for app, head in self.sim.store.heads.items():
            if head.health.level == 100 and head.health.status is Status.RUNNING:
                assert head.proven == head.revision.instance_hash, app
            assert head.fallback is None or head.health.level < 80, app

    @invariant()
    def at_most_one_deployment_of_an_app_is_under_way(self) -> None:
        with closing(sqlite3.connect(self.sim.database)) as database:
            under_way = database.execute("SELECT app, count(*) FROM v_deployments WHERE outcome IS NULL GROUP BY app").fetchall()
        assert all(count == 1 for _, count in under_way), under_way

    @invariant()
    def every_deployment_has_one_row_and_every_rollback_one_of_its_own(self) -> None:
        with closing(sqlite3.connect(self.sim.database)) as database:
            asked = database.execute("SELECT app, revision FROM v_revisions ORDER BY app, revision").fetchall()
            rows = database.execute("SELECT app, revision, kind, outcome FROM v_deployments").fetchall()
        heads = {(app, head.revision.revision) for app, head in self.sim.store.heads.items()}
        own = [(app, revision) for app, revision, kind, _ in rows if kind != "auto-rollback"]
        assert sorted(own) == asked
        assert all(outcome for app, revision, kind, outcome in rows if (app, revision) not in heads), rows
        back = Counter(app for app, _, kind, _ in rows if kind == "auto-rollback")
        assert back == Counter(app for app, _, _, outcome in rows if outcome in ("rolled-back", "rollback-failed")), rows

    @invariant()
    def what_is_blocked_stays_so_and_is_started_no_more(self) -> None:
        for app, head in self.sim.store.heads.items():
            before, revision = self.blocked.pop(app, (None, 0))
            if head.fallback is not None and head.running.instance_hash == head.revision.instance_hash:
                continue  # what differs is not the make of its instances, and those are kept running
            if head.fallback is None:
                assert before is None or revision != head.revision.revision, head
                continue
            starts = self.sim.world.starts[app, head.revision.instance_hash]
            assert before in (None, starts) or revision != head.revision.revision, head
            self.blocked[app] = (starts, head.revision.revision)

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
        self.sim.world.crash_at = None
        self.sim.world.away.clear()
        self.sim.world.missing.clear()
        self.sim.world.programs = {("a", "bad"): 3, ("b", "bad"): 3}
        self.sim.run(self.sim.store.undrain("test"))
        self.sim.world.drained = False
        self.sim.world.sick.clear()
        self.sim.world.refusing.clear()
        self.sim.world.mute.clear()
        self.sim.world.full.clear()
        self.sim.world.indigestible.clear()
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
            if not self.sim.waits(app):
                self.what_should_run_runs(app, head)

    def what_should_run_runs(self, app: str, head: Head) -> None:
        running, alive = head.running, self.sim.world.running(app)
        if running.version != "bad":
            assert len(alive) == running.wanted, (head, self.sim.shape())
            assert all(thing.hash == running.instance_hash for thing in alive), (head, self.sim.shape())
            contents = tuple(file.content for file in running.pkg.files)
            assert all(thing.read == contents for thing in alive), (head, self.sim.shape(), [thing.read for thing in alive])
        if head.revision.version != "bad" or not head.revision.wanted or head.deployment is None:
            return
        back = head.good is not None and head.good.revision.spec_hash != head.revision.spec_hash
        assert head.deployment.stage in ((Stage.ROLLED_BACK, Stage.ROLLBACK_FAILED) if back else (Stage.FAILED,)), head
        assert 50 <= head.health.level < 80 if self.sim.alive(app) else head.health.level == 0, head  # what is paused serves nobody

    def every_end_is_on_record_once(self) -> None:
        """Of every run that ended, also if it was stopped, and wherever the agent died meanwhile."""
        there = {(thing.name, one.run) for thing in self.sim.world.things.values() for one in thing.exits}
        for app in ("a", "b"):
            with closing(sqlite3.connect(self.sim.database)) as database:
                rows = database.execute("SELECT revision, replica, run FROM exits WHERE app = ?", (app,)).fetchall()
                told = database.execute("SELECT revision, 0, run FROM runs WHERE app = ? AND finished_at IS NOT NULL", (app,)).fetchall()
            known = [(InstanceName(app, revision, replica), run) for revision, replica, run in rows]
            assert len(known) == len(set(known)), known
            missing = {one for one in self.sim.world.ended if one[0].app == app} - set(known) - there
            assert not missing, missing
            scripts = {one for one in known if (app, one[0].revision) in self.sim.world.runs}
            assert scripts <= {(InstanceName(app, revision, replica), run) for revision, replica, run in told}, (scripts, told)


TestSimulation = Machine.TestCase
TestSimulation.settings = settings(max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck))

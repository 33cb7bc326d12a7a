"""Faults that once led to a second copy, a lost end, an outage or a flooded history; each on the simulated world."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from boreas_agent.backoff import Moment, after_exit, after_start, given_up
from boreas_agent.controller import Controller
from boreas_agent.errors import Transient, Unavailable
from boreas_agent.model import Attempts, Exit, Status
from boreas_agent.spec import parse_pkg, parse_submission
from tests.simulation import Simulation, package
from tests.waiting import eventually_async


@pytest.fixture
def sim(tmp_path: Path) -> Iterator[Simulation]:
    simulation = Simulation(tmp_path)
    yield simulation
    simulation.close()


def ends(sim: Simulation, app: str = "web") -> Sequence[tuple[int, int]]:
    """(revision, replica) of every recorded end."""
    return sorted((row["revision"], row["replica"]) for row in sim.run(sim.store.exits(app)))


def crash_between_start_and_commit(sim: Simulation, kind: str = "docker") -> None:
    """An instance runs, and the agent that started it died before it could say so."""
    sim.apply("web", "v1", **package(kind))
    cut = 0
    while not sim.world.running("web"):
        cut += 1
        sim.world.crash_at = sim.world.steps + cut
        sim.mortally(sim.tick)
        sim.world.crash_at = None


def test_an_app_whose_passes_break_off_is_not_called_well_and_holds_up_no_other(sim: Simulation, monkeypatch: pytest.MonkeyPatch) -> None:
    sim.apply("web", "v1", **package("docker"))
    sim.apply("job", "v1", **package("binary"))
    sim.settle()

    async def broken(*_: object) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr(sim.drivers[0], "observe_all", broken)  # so that the look at everything breaks off, too
    for name in [name for name in sim.world.things if name.app == "job"]:
        del sim.world.things[name]

    async def told() -> bool:
        head = sim.store.head("web")
        return head is not None and "state unknown: reconciling failed: RuntimeError" in head.health.msg and sim.alive("job") == 1

    async def run() -> None:
        running = asyncio.create_task(Controller(sim.reconciler, sim.store, (), sim.clock, 1000.0).run())
        try:
            await eventually_async(told)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    sim.run(run())
    head = sim.store.head("web")
    assert head is not None
    assert head.health.level < 100


def test_a_type_change_waits_for_the_engine_that_may_still_run_the_old_one(sim: Simulation) -> None:
    crash_between_start_and_commit(sim)
    sim.world.away.add("docker")
    sim.apply("web", "v2", **package("binary"))
    for _ in range(3):  # the world asserts that nothing is started beside
        sim.tick()
        sim.clock.advance(5)
    assert sim.alive("web") == 1
    sim.world.away.clear()
    sim.settle()


@pytest.mark.parametrize("kind", ["binary", "script"])
def test_a_type_change_asks_for_a_process_that_no_record_tells_of(sim: Simulation, kind: str) -> None:
    crash_between_start_and_commit(sim, kind)
    sim.apply("web", "v2", **package("docker"))
    sim.world.away.add("binary")
    sim.tick()
    assert sim.shape() == ["web.1.0 running"]
    sim.world.away.clear()
    sim.settle()
    assert [(thing.name.revision, thing.kind) for thing in sim.world.running("web")] == [(2, "docker")]
    head = sim.store.head("web")
    assert head is not None and head.homes == {"docker"}


@pytest.mark.parametrize("kind", ["binary", "script"])
def test_a_removal_asks_for_a_process_that_no_record_tells_of(sim: Simulation, kind: str) -> None:
    crash_between_start_and_commit(sim, kind)
    sim.remove("web")
    sim.world.away.add("binary")
    sim.tick()
    assert sim.store.head("web") is not None
    sim.world.away.clear()
    sim.settle()
    assert (sim.shape(), sim.store.head("web")) == ([], None)


def test_a_removal_does_not_end_while_the_engine_cannot_say_what_runs(sim: Simulation) -> None:
    crash_between_start_and_commit(sim)
    sim.world.away.add("docker")
    sim.remove("web")
    sim.tick()
    assert sim.store.head("web") is not None


def test_a_removal_of_what_never_ran_needs_no_engine(sim: Simulation) -> None:
    sim.world.away.add("docker")
    sim.apply("web", "v1", **package("docker"))
    sim.tick()
    sim.remove("web")
    sim.tick()
    assert sim.store.head("web") is None


def test_a_removal_needs_no_engine_that_only_the_last_revision_was_to_run_on(sim: Simulation) -> None:
    sim.apply("web", "v1", **package("binary"))
    sim.settle()
    sim.world.away.add("docker")
    sim.apply("web", "v2", **package("docker"))
    sim.tick()
    assert sim.alive("web") == 1
    sim.remove("web")
    for _ in range(3):
        sim.tick()
        sim.clock.advance(5)
    assert (sim.alive("web"), sim.store.head("web")) == (0, None)


@pytest.mark.parametrize("kind", ["docker", "binary"])
def test_the_end_of_a_superseded_instance_is_on_record_wherever_the_agent_dies(kind: str, tmp_path: Path) -> None:
    cut, crashed = 0, True
    while crashed:
        cut += 1
        (folder := tmp_path / str(cut)).mkdir()
        sim = Simulation(folder)
        sim.apply("web", "v1", **package(kind))
        sim.settle()
        sim.apply("web", "v2", **package(kind))
        sim.world.crash_at = sim.world.steps + cut
        sim.mortally(sim.tick)
        crashed, sim.world.crash_at = sim.world.crash_at is None, None
        sim.settle()
        assert ends(sim) == [(1, 0)], f"cut at step {cut}"
        sim.close()
    assert cut > 5


def test_a_newer_revision_cancels_a_pull_even_if_it_came_just_before_the_pull_began(sim: Simulation) -> None:
    driver: Any = sim.drivers[0]

    async def prepared(want: Any) -> bool:
        if want.version == "v1":
            await sim.store.apply(parse_submission({"app": "web", "version": "v2", "pkg": package("docker")}), "test")
        return bool(want.version != "v1")

    async def prepare(want: Any) -> None:
        await asyncio.get_running_loop().create_future()

    driver.prepared, driver.prepare = prepared, prepare
    sim.apply("web", "v1", **package("docker"))
    sim.run(asyncio.wait_for(sim.reconciler.reconcile("web"), 10))


def test_an_app_that_is_removed_while_it_starts_for_the_first_time_is_not_gone_before_its_process_is(sim: Simulation) -> None:
    sim.apply("web", "v1", **package("binary"))
    driver: Any = sim.drivers[1]
    begin = driver.start

    async def start(want: Any, after: int) -> None:
        await begin(want, after)
        await sim.store.remove("web", "test")

    driver.start = start
    sim.tick()
    assert (sim.store.head("web"), sim.alive("web")) == (None, 0)


def test_what_cannot_be_removed_neither_holds_up_the_new_version_nor_floods_the_history(sim: Simulation) -> None:
    sim.apply("web", "v1", **package("docker"))
    sim.settle()
    driver: Any = sim.drivers[0]

    async def remove(seen: Any) -> None:
        raise Transient("cannot remove web: device or resource busy")

    driver.remove = remove
    sim.apply("web", "v2", **package("docker"))
    for _ in range(100):
        sim.tick()
        sim.clock.advance(5)
    assert sim.alive("web") == 1
    assert sum(event["kind"] == "RemoveFailed" for event in sim.run(sim.store.events("web", limit=1000))) == 1


def test_an_engine_that_goes_away_in_the_middle_of_a_start_is_no_failure_of_the_app(sim: Simulation) -> None:
    sim.apply("web", "v1", **package("docker"))
    driver: Any = sim.drivers[0]

    async def start(want: Any, after: int) -> None:
        raise Unavailable("cannot reach Docker")

    driver.start = start
    sim.tick()
    head = sim.store.head("web")
    assert head is not None
    assert not any(tried.failures for tried in head.attempts.values())


def test_a_start_after_failed_pulls_is_no_crash_loop(sim: Simulation) -> None:
    sim.world.missing.add(("web", "v1"))
    sim.apply("web", "v1", **package("docker"))
    for _ in range(4):
        sim.tick()
        sim.clock.advance(30)
    sim.world.missing.clear()
    sim.tick()
    head = sim.store.head("web")
    assert head is not None
    assert (sim.alive("web"), head.health.status, head.health.level) == (1, Status.DEPLOYING, 30)


def test_reboots_days_apart_are_no_crash_loop(sim: Simulation) -> None:
    sim.apply("web", "v1", **package("binary"))
    sim.settle()
    for _ in range(6):
        sim.clock.advance(86400.0)
        sim.tick()
        sim.kill()
        sim.world.reboot()
        sim.start()
        sim.tick()
        head = sim.store.head("web")
        assert head is not None
        assert sim.alive("web") == 1
        assert head.health.level >= 80


def test_a_script_that_fails_after_minutes_is_given_up_all_the_same() -> None:
    pkg = parse_pkg({"type": "script", "command": ["false"]})
    tried = Attempts(0, "h")
    for run in range(3):
        assert not given_up(tried, pkg)
        tried = after_start(tried, pkg.restart, Moment(1000.0 * run, "b", 0.0))
        ended = Exit(str(run), None, datetime(2026, 1, 1, tzinfo=UTC), code=1, seconds=120.0)
        tried = after_exit(tried, f"1.{run}", ended, pkg, Moment(1000.0 * run + 120, "b", 0.0))
    assert given_up(tried, pkg)


def test_a_script_that_is_seen_at_work_for_minutes_is_given_up_all_the_same(sim: Simulation) -> None:
    sim.apply("web", "v1", **package("script", retries=1))
    for _ in range(4):
        for _ in range(12):
            sim.tick()
            sim.clock.advance(11)
        for thing in sim.world.running("web"):
            sim.world.end(thing, code=1)
    sim.tick()
    assert sim.world.runs["web", 1] == [1, 1]


def test_a_missing_image_asked_for_again_and_again_does_not_flood_the_history(sim: Simulation) -> None:
    sim.world.missing.add(("web", "v1"))
    sim.apply("web", "v1", **package("docker", replicas=5))
    for _ in range(60):
        sim.tick()
        sim.clock.advance(66)
    assert len(sim.run(sim.store.health("web", limit=1000))) <= 10
    assert len(sim.run(sim.store.events("web", limit=1000))) <= 10


@pytest.mark.parametrize("kind", ["docker", "binary"])
def test_a_removal_that_comes_while_the_first_instance_is_started_does_not_forget_it(sim: Simulation, kind: str) -> None:
    driver: Any = next(one for one in sim.drivers if kind in one.kinds)
    start = driver.start

    async def removed_meanwhile(want: Any, after: int) -> None:
        await start(want, after)
        await sim.store.remove("web", "test")

    driver.start = removed_meanwhile
    sim.apply("web", "v1", **package(kind))
    sim.run(sim.reconciler.reconcile("web"))
    assert sim.alive("web") == 0
    assert sim.store.head("web") is None
    assert ends(sim) == [(1, 0)]

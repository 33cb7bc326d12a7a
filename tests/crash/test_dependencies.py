"""Apps that wait for others, in the simulated world, which itself asserts that nothing new begins too early."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from boreas_agent.model import Stage, Status
from tests.simulation import Simulation, package


@pytest.fixture
def sim(tmp_path: Path) -> Iterator[Simulation]:
    simulation = Simulation(tmp_path)
    yield simulation
    simulation.close()


def ticks(sim: Simulation, count: int, seconds: float = 11.0) -> None:
    for _ in range(count):
        sim.tick()
        sim.clock.advance(seconds)


def starts(sim: Simulation) -> list[str]:
    """Which apps began, in order."""
    return [effect.removeprefix("start ").split(".")[0] for effect in sim.world.effects if effect.startswith("start ")]


def stops(sim: Simulation) -> list[str]:
    return [effect.removeprefix("stop ").split(".")[0] for effect in sim.world.effects if effect.startswith("stop ")]


def health(sim: Simulation, app: str) -> tuple[int, Status, str]:
    is_now = sim.store.heads[app].health
    return is_now.level, is_now.status, is_now.msg


def events(sim: Simulation, app: str, kind: str) -> list[str]:
    return [event["message"] for event in sim.run(sim.store.events(app, limit=500)) if event["kind"] == kind]


def needs(app: str, condition: str = "running") -> dict[str, Any]:
    return {"depends_on": [{"app": app, "condition": condition}]}


def both_run(sim: Simulation, kind: str = "binary", condition: str = "healthy") -> None:
    """``a-web`` needs ``db``, and comes first in every list."""
    sim.apply("db", "v1", **package(kind))
    sim.apply("a-web", "v1", **package(kind, **needs("db", condition)))
    sim.settle()
    assert starts(sim) == ["db", "a-web"]


@pytest.mark.parametrize("kind", ["docker", "binary"])
def test_an_app_starts_once_what_it_depends_on_is_healthy(sim: Simulation, kind: str) -> None:
    sim.apply("a-web", "v1", **package(kind, **needs("db", "healthy")))
    ticks(sim, 3)
    assert health(sim, "a-web") == (10, Status.DEPLOYING, "waiting for db: there is no such app on this node")
    sim.apply("db", "v1", **package(kind))
    sim.tick()
    assert starts(sim) == ["db"]
    sim.settle()
    assert starts(sim) == ["db", "a-web"]
    assert events(sim, "a-web", "Waiting") == ["a-web is waiting for db: there is no such app on this node"]


def test_a_wait_is_told_once_and_its_words_follow_what_it_waits_for(sim: Simulation) -> None:
    sim.apply("db", "v1", **package("binary"))
    sim.apply("web", "v1", **package("binary", **needs("db", "healthy")))
    for _ in range(5):
        sim.tick()
        sim.clock.advance(1)
    assert health(sim, "web") == (10, Status.DEPLOYING, "waiting for db to be healthy: db is deploying (30)")
    assert len(events(sim, "web", "Waiting")) == 1
    commits = sim.store.commits
    sim.tick()
    assert sim.store.commits == commits, "a wait that goes on costs nothing"


def test_the_old_version_serves_on_while_the_new_one_waits_and_no_deadline_passes(sim: Simulation) -> None:
    sim.apply("web", "v1", **package("docker"))
    sim.settle()
    sim.apply("web", "v2", **package("docker", **needs("db")))
    for hours in range(30):
        sim.clock.wall += timedelta(hours=hours)
        ticks(sim, 2, 3600)
    assert sim.shape() == ["web.1.0 running"]
    assert health(sim, "web") == (
        50,
        Status.DEPLOYING,
        "revision 1 (v1) still serves; waiting for db: there is no such app on this node",
    )
    sim.apply("db", "v1", **package("docker"))
    sim.settle()
    assert sim.shape() == ["db.1.0 running", "web.2.0 running"]
    assert sim.store.heads["web"].deployment.stage is Stage.SUCCEEDED  # type: ignore[union-attr]


def test_the_time_of_a_deployment_goes_on_once_it_waits_no_longer(sim: Simulation) -> None:
    sim.world.stuck.add(("web", "v1"))
    sim.apply("web", "v1", **package("docker", **needs("db")))
    ticks(sim, 20, 100)
    sim.apply("db", "v1", **package("docker"))
    sim.tick()
    assert sim.store.heads["web"].deployment.spent < 20  # type: ignore[union-attr]
    ticks(sim, 40, 10)
    assert sim.store.heads["web"].deployment.stage is Stage.FAILED  # type: ignore[union-attr]


@pytest.mark.parametrize("condition", ["running", "healthy", "completed"])
def test_a_script_that_its_check_finds_needless_has_completed_for_those_who_depend_on_it(sim: Simulation, condition: str) -> None:
    sim.world.states["migrate"] = 0
    sim.apply("a-web", "v1", **package("binary", **needs("migrate", condition)))
    sim.tick()
    assert starts(sim) == []
    sim.apply("migrate", "v1", **package("script", check="true"))
    sim.settle()
    assert starts(sim) == ["a-web"]
    assert health(sim, "migrate")[:2] == (100, Status.COMPLETED)


def test_a_script_whose_first_time_has_not_come_keeps_nobody_waiting(sim: Simulation) -> None:
    sim.apply("nightly", "v1", **package("script", schedule="0 3 * * *"))
    sim.apply("a-web", "v1", **package("binary", **needs("nightly", "completed")))
    sim.settle()
    assert starts(sim) == ["a-web"]


def test_what_it_needs_is_fetched_while_it_waits(sim: Simulation) -> None:
    sim.world.missing.add(("web", "v1"))
    sim.apply("web", "v1", **package("docker", **needs("db")))
    sim.tick()
    assert "no such image" in sim.store.heads["web"].health.msg


@pytest.mark.parametrize("kind", ["docker", "binary"])
def test_a_crash_is_healed_though_what_it_depends_on_is_gone(sim: Simulation, kind: str) -> None:
    both_run(sim, kind)
    sim.remove("db")
    sim.settle()
    assert sim.alive("a-web") == 1, "nothing is stopped for it"
    sim.world.end(sim.world.running("a-web")[0], code=9)
    sim.tick()
    assert sim.alive("a-web") == 1
    sim.run(sim.store.restart("a-web", "test"))
    ticks(sim, 3)
    assert sim.shape() == ["a-web.1.0 running"]
    assert "waiting for db: there is no such app" in sim.store.heads["a-web"].health.msg


@pytest.mark.parametrize("kind", ["docker", "binary"])
def test_after_a_reboot_the_order_holds_again(sim: Simulation, kind: str) -> None:
    both_run(sim, kind)
    sim.kill()
    sim.world.reboot()
    sim.start()
    sim.tick()
    assert (sim.alive("db"), sim.alive("a-web")) == (1, 0)
    level, status, msg = health(sim, "a-web")
    assert (level, status) == (10, Status.DEPLOYING)
    assert msg.startswith("waiting for db to be healthy: db is ")
    sim.settle()
    assert starts(sim) == ["db", "a-web", "db", "a-web"]
    assert sim.store.heads["a-web"].deployment.stage is Stage.SUCCEEDED  # type: ignore[union-attr]


def test_a_dependency_with_probes_counts_only_once_they_were_asked_after_the_reboot(sim: Simulation) -> None:
    sim.apply("a-db", "v1", **package("binary", health={"readiness": {"tcp": {"port": 1}}}))
    sim.apply("web", "v1", **package("binary", **needs("a-db", "healthy")))
    sim.settle()
    sim.world.sick.add(("a-db", "v1", "readiness"))
    sim.kill()
    sim.world.reboot()
    sim.start()
    ticks(sim, 5)
    assert (sim.alive("a-db"), sim.alive("web")) == (1, 0)
    sim.world.sick.clear()
    sim.settle()
    assert sim.alive("web") == 1


def test_when_the_engine_comes_anew_the_order_holds_again(sim: Simulation) -> None:
    both_run(sim, "docker")
    for thing in list(sim.world.things.values()):
        sim.world.end(thing, code=137)
    sim.drivers[0].epoch += 1
    sim.world.familiar.clear()
    sim.tick()
    assert (sim.alive("db"), sim.alive("a-web")) == (1, 0)
    sim.settle()
    assert starts(sim) == ["db", "a-web", "db", "a-web"]


def test_a_dependency_of_which_nobody_can_say_how_it_is_is_waited_for(sim: Simulation) -> None:
    sim.apply("db", "v1", **package("docker"))
    sim.settle()
    sim.world.away.add("docker")
    sim.apply("web", "v1", **package("binary", **needs("db")))
    sim.tick()
    assert health(sim, "web") == (10, Status.DEPLOYING, "waiting for db: docker does not answer")


def test_an_automatic_rollback_waits_too(sim: Simulation) -> None:
    sim.world.programs["a-web", "bad"] = 3
    both_run(sim, "docker")
    sim.apply("a-web", "bad", **package("docker"))
    sim.tick()
    sim.remove("db")
    ticks(sim, 6)
    head = sim.store.heads["a-web"]
    assert head.deployment is not None
    assert (head.deployment.stage, sim.alive("a-web")) == (Stage.ROLLING_BACK, 0)
    assert head.health.msg.endswith("waiting for db: there is no such app on this node")
    sim.apply("db", "v2", **package("docker"))
    sim.settle()
    assert (sim.store.heads["a-web"].deployment.stage, sim.alive("a-web")) == (Stage.ROLLED_BACK, 1)  # type: ignore[union-attr]


def test_two_apps_that_wait_for_each_other_after_a_rollback_say_so_until_somebody_changes_that(sim: Simulation) -> None:
    sim.world.programs["a-web", "bad"] = 3
    both_run(sim)
    sim.apply("a-web", "bad", **package("binary"))
    sim.tick()
    sim.apply("db", "v2", **package("binary", **needs("a-web")))
    ticks(sim, 8)
    assert "waits for itself: a-web -> db -> a-web" in sim.store.heads["a-web"].health.msg
    assert "waits for itself: db -> a-web -> db" in sim.store.heads["db"].health.msg
    assert sim.shape() == ["db.1.0 running"]
    sim.apply("db", "v3", **package("binary"))
    sim.settle()
    assert sim.alive("a-web") == 1


# --- drain -------------------------------------------------------------------------------------------


def drain(sim: Simulation) -> None:
    sim.run(sim.store.drain("test", "new disk"))
    sim.world.drained = True
    sim.world.familiar.clear()


def undrain(sim: Simulation) -> None:
    sim.run(sim.store.undrain("test"))
    sim.world.drained = False


def chain(sim: Simulation) -> None:
    """The names are in the wrong order on purpose."""
    sim.apply("c", "v1", **package("binary", **needs("b")))
    sim.apply("b", "v1", **package("docker", **needs("a")))
    sim.apply("a", "v1", **package("binary"))
    sim.settle()
    assert starts(sim) == ["a", "b", "c"]


def test_a_drain_stops_in_the_reverse_order_and_its_end_starts_forwards(sim: Simulation) -> None:
    chain(sim)
    drain(sim)
    sim.tick()
    assert health(sim, "a") == (0, Status.DEPLOYING, "waiting for b to stop: the node is drained by test: new disk")
    ticks(sim, 5)
    assert (stops(sim), sim.shape()) == (["c", "b", "a"], [])
    undrain(sim)
    sim.settle()
    assert starts(sim) == ["a", "b", "c"] * 2


def test_a_new_agent_goes_on_with_the_drain(sim: Simulation) -> None:
    chain(sim)
    drain(sim)
    for _ in range(5):
        sim.kill()
        sim.start()
        sim.tick()
    assert (stops(sim), sim.shape()) == (["c", "b", "a"], [])


def test_a_held_app_is_left_alone_and_what_it_depends_on_stops_all_the_same(sim: Simulation) -> None:
    chain(sim)
    sim.run(sim.store.hold("c", "test", "debugging", None))
    drain(sim)
    ticks(sim, 5)
    assert (stops(sim), sim.shape()) == (["b", "a"], ["c.1.0 running"])


def test_a_script_under_way_keeps_what_it_depends_on_running(sim: Simulation) -> None:
    sim.apply("db", "v1", **package("binary"))
    sim.apply("job", "v1", **package("script", **needs("db")))
    sim.tick()
    sim.tick()
    drain(sim)
    ticks(sim, 3)
    assert sim.shape() == ["db.1.0 running", "job.1.0 running"]
    sim.world.end(sim.world.running("job")[0], code=0)
    ticks(sim, 3)
    assert sim.shape() == ["job.1.0 exited"]


def test_what_an_engine_that_is_away_may_still_run_is_not_taken_for_stopped(sim: Simulation) -> None:
    chain(sim)
    drain(sim)
    sim.world.away.add("docker")
    ticks(sim, 5)
    assert sim.alive("a") == 1
    sim.world.away.clear()
    ticks(sim, 5)
    assert stops(sim) == ["c", "b", "a"]


# --- waking ------------------------------------------------------------------------------------------


def test_what_waits_is_woken_by_the_next_change_of_what_it_waits_for(sim: Simulation) -> None:
    sim.apply("web", "v1", **package("binary", **needs("db")))
    sim.tick()

    async def next_woken() -> str:
        async for app in sim.reconciler.turns.events():
            return app
        raise AssertionError

    async def nobody() -> bool:
        try:
            await asyncio.wait_for(next_woken(), 0.05)
        except TimeoutError:
            return True
        return False

    assert sim.run(nobody())
    sim.apply("db", "v1", **package("binary"))
    assert sim.run(asyncio.wait_for(next_woken(), 5)) == "web"
    sim.settle()
    while not sim.run(nobody()):
        pass  # what it was woken by while it waited
    sim.run(sim.store.hold("db", "test", "", None))
    assert sim.run(nobody()), "who waits no longer is left in peace"


# --- crashes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["docker", "binary"])
def test_an_ordered_start_cut_at_any_step_keeps_its_order(kind: str, tmp_path: Path) -> None:
    cut, crashed = 0, True
    while crashed:
        cut += 1
        folder = tmp_path / str(cut)
        folder.mkdir()
        sim = Simulation(folder)
        sim.world.programs["migrate", "v1"] = 0
        sim.world.crash_at = cut
        sim.apply(
            "a-web", "v1", **package(kind, depends_on=[{"app": "db", "condition": "healthy"}, {"app": "migrate", "condition": "completed"}])
        )
        sim.apply("db", "v1", **package(kind))
        sim.apply("migrate", "v1", **package("script", **needs("db")))
        for _ in range(6):
            sim.mortally(sim.tick)
            sim.clock.advance(4)
        crashed, sim.world.crash_at = sim.world.crash_at is None, None
        sim.settle()
        assert starts(sim) == ["db", "migrate", "a-web"], f"cut at step {cut}"
        assert sim.shape() == ["a-web.1.0 running", "db.1.0 running", "migrate.1.0 exited"], f"cut at step {cut}"
        sim.kill()
        sim.world.reboot()
        sim.start()
        sim.world.crash_at = sim.world.steps + cut
        for _ in range(6):
            sim.mortally(sim.tick)
            sim.clock.advance(4)
        crashed, sim.world.crash_at = crashed or sim.world.crash_at is None, None
        sim.settle()
        assert starts(sim) == ["db", "migrate", "a-web", "db", "a-web"], f"cut at step {cut} after the reboot"
        drain(sim)
        sim.world.crash_at = sim.world.steps + cut
        for _ in range(6):
            sim.mortally(sim.tick)
            sim.clock.advance(4)
        crashed, sim.world.crash_at = crashed or sim.world.crash_at is None, None
        ticks(sim, 3)
        assert stops(sim) == ["a-web", "db"], f"cut at step {cut} of the drain"
        sim.close()
    assert cut > 15

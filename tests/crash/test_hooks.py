"""Hooks on the simulated world, whole and cut at every step."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from boreas_agent.model import Stage, Status
from tests.crash.test_rollouts import deployed, events, level, rows, stage
from tests.simulation import Simulation, hooks, package

KINDS = ["docker", "binary"]


@pytest.fixture
def sim(tmp_path: Path) -> Iterator[Simulation]:
    simulation = Simulation(tmp_path)
    yield simulation
    simulation.close()


def told(sim: Simulation) -> list[str]:
    """The events that have to do with hooks, starts and stops, and what they say of."""
    found = sim.run(sim.store.events("web", limit=500))
    return [event["kind"] for event in found if event["kind"].startswith(("Pre", "Post", "Start", "Stop"))]


@pytest.mark.parametrize("kind", KINDS)
def test_every_hook_runs_once_in_its_place(sim: Simulation, kind: str) -> None:
    deployed(sim, kind, **hooks())
    deployed(sim, kind, version="v2", **hooks())
    assert sim.world.hooks == ["pre_start web.1.0", "post_start web.1.0", "pre_start web.2.0", "pre_stop web.1.0", "post_start web.2.0"]
    assert told(sim)[-5:] == ["PreStartSucceeded", "PreStopSucceeded", "Stopped", "Started", "PostStartSucceeded"]
    sim.remove("web")
    sim.settle()
    assert sim.world.hooks[-1] == "pre_stop web.2.0"


@pytest.mark.parametrize("kind", KINDS)
def test_a_failing_pre_start_fails_the_deployment_at_once_and_touches_nothing(sim: Simulation, kind: str) -> None:
    deployed(sim, kind, **hooks())
    before = list(sim.world.effects)
    sim.world.refusing.add(("web", "pre_start"))
    sim.apply("web", "v2", **package(kind, **hooks()))
    sim.tick()
    sim.tick()
    assert (stage(sim), sim.world.effects, level(sim)) == (Stage.ROLLED_BACK, before, (70, Status.DEGRADED))
    assert "its pre_start hook failed: the command exited with code 1: the hook's words" in sim.store.heads["web"].health.msg
    sim.settle()
    sim.kill()
    sim.start()
    sim.settle()
    assert sim.world.hooks == ["pre_start web.1.0", "post_start web.1.0", "pre_start web.2.0"]
    assert rows(sim)[1:] == [(2, "v2", "apply", "rolled-back"), (1, "v1", "auto-rollback", "succeeded")]
    sim.world.refusing.clear()
    sim.apply("web", "v2", force=True, **package(kind, **hooks()))
    sim.settle()
    assert (sim.shape(), level(sim)) == (["web.3.0 running"], (100, Status.RUNNING))


def test_without_an_older_revision_a_failing_pre_start_is_tried_again_with_backoff(sim: Simulation) -> None:
    sim.world.refusing.add(("web", "pre_start"))
    sim.apply("web", "v1", **package("docker", **hooks()))
    for _ in range(10):
        sim.tick()
    assert (stage(sim), level(sim), sim.shape()) == (Stage.FAILED, (0, Status.FAILED), [])
    assert sim.world.hooks == ["pre_start web.1.0"]
    for _ in range(100):
        sim.clock.advance(1)
        sim.tick()
    assert 5 <= len(sim.world.hooks) <= 9
    assert events(sim).count("PreStartFailed") == 1, "the same words again are no news"
    sim.world.refusing.clear()
    sim.settle()
    assert (sim.shape(), stage(sim)) == (["web.1.0 running"], Stage.SUCCEEDED)


@pytest.mark.parametrize("kind", KINDS)
def test_a_failing_post_start_restarts_with_backoff_and_fails_the_deployment(sim: Simulation, kind: str) -> None:
    deployed(sim, kind)
    sim.world.refusing.add(("web", "post_start"))
    sim.apply("web", "v2", **package(kind, **hooks()))
    sim.settle()
    assert (stage(sim), sim.shape(), level(sim)) == (Stage.ROLLED_BACK, ["web.1.0 running"], (70, Status.DEGRADED))
    assert "crash-looping: post_start hook failed: the command exited with code 1" in sim.store.heads["web"].health.msg
    assert sim.world.hooks == ["pre_start web.2.0", *["post_start web.2.0", "pre_stop web.2.0"] * 3]


def test_a_restart_runs_its_post_start_again_and_a_change_of_hooks_runs_none(sim: Simulation) -> None:
    deployed(sim, "binary", **hooks())
    for thing in sim.world.running("web"):
        sim.world.end(thing, signal="SIGKILL")
    sim.settle()
    assert sim.world.hooks == ["pre_start web.1.0", "post_start web.1.0", "post_start web.1.0"]
    sim.apply("web", "v1", **package("binary", hooks={**hooks()["hooks"], "pre_stop": {"exec": {"command": ["hook", "other"]}}}))
    sim.settle()
    assert len(sim.world.hooks) == 3
    sim.remove("web")
    sim.settle()
    assert sim.world.hooks[3:] == ["other web.1.0"]


def test_a_failing_pre_stop_stops_nothing_from_being_stopped(sim: Simulation) -> None:
    sim.world.refusing.add(("web", "pre_stop"))
    deployed(sim, **hooks())
    deployed(sim, version="v2", **hooks())
    assert (sim.shape(), level(sim)) == (["web.2.0 running"], (100, Status.RUNNING))
    assert told(sim).count("PreStopFailed") == 1
    sim.run(sim.store.drain("test", ""))
    sim.tick()
    assert (sim.alive("web"), sim.world.hooks[-1], told(sim).count("PreStopFailed")) == (0, "pre_stop web.2.0", 2)


def test_what_falls_back_to_a_running_instance_runs_none_of_its_hooks_again(sim: Simulation) -> None:
    start_first: dict[str, Any] = {"rollout": {"strategy": "start-first"}, **hooks()}
    deployed(sim, **start_first)
    sim.world.programs["web", "bad"] = 3
    sim.apply("web", "bad", **package("docker", **start_first))
    sim.settle()
    assert (stage(sim), sim.shape()) == (Stage.ROLLED_BACK, ["web.1.0 running"])
    assert [one for one in sim.world.hooks if one.endswith("web.1.0")] == ["pre_start web.1.0", "post_start web.1.0"]


@pytest.mark.parametrize("failing", ["", "pre_start", "post_start", "pre_stop"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_crash_at_any_step_changes_nothing_about_the_outcome(kind: str, failing: str, tmp_path: Path) -> None:
    cut, crashed = 0, True
    while crashed:
        cut += 1
        folder = tmp_path / str(cut)
        folder.mkdir()
        sim = Simulation(folder)
        deployed(sim, kind, hooks={"pre_stop": hooks()["hooks"]["pre_stop"]})
        sim.world.refusing.add(("web", failing))
        sim.world.crash_at = sim.world.steps + cut
        sim.apply("web", "v2", **package(kind, **hooks()))
        for _ in range(8):
            sim.mortally(sim.tick)
            sim.clock.advance(4)
        crashed, sim.world.crash_at = sim.world.crash_at is None, None
        sim.settle()
        back = failing in ("pre_start", "post_start")
        assert sim.shape() == [f"web.{1 if back else 2}.0 running"], f"cut at step {cut}"
        assert stage(sim) is (Stage.ROLLED_BACK if back else Stage.SUCCEEDED), f"cut at step {cut}"
        runs = {what: sim.world.hooks.count(f"{what} web.2.0") for what in ("pre_start", "post_start")}
        assert 1 <= runs["pre_start"] <= 1 + crashed, f"cut at step {cut}: once, and once more where the agent died in it"
        if not failing:
            assert 1 <= runs["post_start"] <= 1 + crashed, f"cut at step {cut}"
            assert 1 <= sim.world.hooks.count("pre_stop web.1.0") <= 1 + crashed, f"cut at step {cut}"
        sim.close()
    assert cut > 6

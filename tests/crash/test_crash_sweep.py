"""The same scenario, cut at every step of the agent, and then finished by its successor."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from boreas_agent.model import Status
from tests.simulation import Simulation, package


def scenario(sim: Simulation, kind: str) -> None:
    """Deploy, lose the instance, deploy another version, remove; each as far as the agent lives."""
    sim.apply("web", "v1", **package(kind))
    sim.mortally(sim.tick)
    sim.clock.advance(15)
    sim.mortally(sim.tick)
    for thing in sim.world.running("web"):
        sim.world.end(thing, code=0 if kind == "script" else None, signal=None if kind == "script" else "SIGKILL")
    sim.mortally(sim.tick)
    sim.clock.advance(15)
    sim.apply("web", "v2", **package(kind))
    sim.mortally(sim.tick)
    sim.clock.advance(15)


@pytest.mark.parametrize("kind", ["docker", "binary", "script"])
def test_a_crash_at_any_step_changes_nothing_about_the_outcome(kind: str, tmp_path: Path) -> None:
    cut, crashed = 0, True
    while crashed:
        cut += 1
        folder = tmp_path / str(cut)
        folder.mkdir()
        sim = Simulation(folder)
        sim.world.crash_at = cut
        scenario(sim, kind)
        crashed, sim.world.crash_at = sim.world.crash_at is None, None
        if kind == "script":
            sim.world.programs["web", "v2"] = 0
            for thing in sim.world.running("web"):
                sim.world.end(thing, code=0)
        sim.settle()
        expected = (["web.2.0 exited"], Status.COMPLETED) if kind == "script" else (["web.2.0 running"], Status.RUNNING)
        assert (sim.shape(), sim.store.heads["web"].health.status) == expected, f"cut at step {cut}"
        restarts = sum(tried.restarts for tried in sim.store.heads["web"].attempts.values())
        assert restarts == 0, f"cut at step {cut}: the crash of the agent counted as one of the app"
        if kind == "script":
            assert sim.world.runs["web", 2] == [0], f"cut at step {cut}"
            assert len(sim.world.runs.get(("web", 1), [])) <= 1, f"cut at step {cut}"
        sim.remove("web")
        sim.settle()
        assert (sim.shape(), dict(sim.store.heads)) == ([], {})
        sim.close()
    assert cut > 10, "the sweep ended before it had begun"


@pytest.mark.parametrize("kind", ["docker", "binary"])
def test_a_crash_at_any_step_never_hides_that_a_probe_was_the_cause(kind: str, tmp_path: Path) -> None:
    cut, crashed = 0, True
    while crashed:
        cut += 1
        folder = tmp_path / str(cut)
        folder.mkdir()
        sim = Simulation(folder)
        sim.apply("web", "v1", **package(kind, health={"liveness": {"tcp": {"port": 1}, "failure_threshold": 2}}))
        sim.settle()
        sim.world.sick.add(("web", "v1", "liveness"))
        sim.world.crash_at = sim.world.steps + cut
        for _ in range(8):
            sim.mortally(sim.tick)
            if sim.world.ended:
                sim.world.sick.clear()
        crashed, sim.world.crash_at = sim.world.crash_at is None, None
        sim.settle()
        with closing(sqlite3.connect(sim.database)) as database:
            reasons = [reason for (reason,) in database.execute("SELECT reason FROM exits")]
        assert reasons == ["stopped: liveness probe failed 2 times: sick"], f"cut at step {cut}"
        tried = sim.store.heads["web"].attempts[0]
        assert tried.restarts == 1, f"cut at step {cut}"
        assert tried.last_exit is not None
        assert tried.last_exit.unhealthy == "liveness probe failed 2 times: sick", f"cut at step {cut}"
        sim.close()
    assert cut > 5, "the sweep ended before it had begun"


@pytest.mark.parametrize("kind", ["docker", "binary", "script"])
def test_a_removal_cut_at_any_step_leaves_nothing_behind(kind: str, tmp_path: Path) -> None:
    cut, crashed = 0, True
    while crashed:
        cut += 1
        folder = tmp_path / str(cut)
        folder.mkdir()
        sim = Simulation(folder)
        sim.apply("web", "v1", **package(kind))
        sim.settle() if kind != "script" else sim.tick()
        sim.world.crash_at = sim.world.steps + cut
        sim.remove("web")
        sim.mortally(sim.tick)
        crashed, sim.world.crash_at = sim.world.crash_at is None, None
        sim.settle()
        assert (sim.shape(), dict(sim.store.heads)) == ([], {}), f"cut at step {cut}"
        sim.close()
    assert cut > 3

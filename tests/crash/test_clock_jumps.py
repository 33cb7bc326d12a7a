"""The wall clock jumps on the simulated world: what happens, and when on the boot clock, is what would have happened anyway."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest

from tests.simulation import Simulation, package

JUMPS = {"-40 s": (-40,), "+10 min": (600,), "-1 day": (-86400,), "all of them, again and again": (-40, 600, -86400, 86400)}
READY = {"health": {"readiness": {"exec": {"command": ["/bin/true"]}, "failure_threshold": 2}}}
STORIES: dict[str, dict[str, Any]] = {
    "a crash loop in backoff": {"version": "bad"},
    "a rollout that crashes": {"good": True, "version": "bad"},
    "a rollout that is never ready": {"good": True, "version": "sick", "more": READY},
    "a rollout start-first": {"good": True, "version": "v2", "more": {"rollout": {"strategy": "start-first"}, "replicas": 2}},
    "a version whose image is missing for a while": {"version": "missing"},
}


def told(folder: Path, kind: str, story: dict[str, Any], jumps: Sequence[int]) -> list[tuple[float, Any]]:
    """When, in boot seconds, which effects and levels came about; after every 5 seconds the wall clock jumps, and once the agent dies."""
    folder.mkdir()
    sim, seen = Simulation(folder), list[tuple[float, Any]]()
    sim.world.programs["web", "bad"] = 3
    sim.world.sick.add(("web", "sick", "readiness"))
    more = story.get("more", {})
    if story.get("good"):
        sim.apply("web", "v1", **package(kind, **more))
        sim.settle()
    if story["version"] == "missing":
        sim.world.missing.add(("web", "missing"))
    sim.apply("web", story["version"], **package(kind, **more))
    ahead = cycle(jumps)
    for second in range(400):
        if second == 33:
            sim.kill()
            sim.start()
        if second == 60:
            sim.world.missing.clear()
        if second % 5 == 0:
            sim.clock.wall += timedelta(seconds=next(ahead))
        before = len(sim.world.effects)
        sim.tick()
        seen += [(sim.clock.boottime(), effect) for effect in sim.world.effects[before:]]
        health = sim.store.heads["web"].health
        if not seen or seen[-1][1] != health:
            seen.append((sim.clock.boottime(), health))
        sim.clock.advance(1)
    sim.close()
    return seen


@pytest.mark.parametrize("kind", ["docker", "binary"])
@pytest.mark.parametrize("story", STORIES)
def test_scenario_7_a_jump_of_the_wall_clock_changes_nothing_and_no_moment_of_it(story: str, kind: str, tmp_path: Path) -> None:
    expected = told(tmp_path / "still", kind, STORIES[story], (0,))
    assert len(expected) > 3
    for what, jumps in JUMPS.items():
        assert told(tmp_path / what, kind, STORIES[story], jumps) == expected, what

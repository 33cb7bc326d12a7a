"""Running apps that are told of another content of a file, on the simulated world, cut at every step."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from boreas_agent import rollout
from boreas_agent.model import InstanceName, Phase, Stage
from boreas_agent.records import decode
from tests.crash.test_rollouts import deployed, events, level, rows, shaped, stage
from tests.simulation import Simulation, migrated, package

DEADLY = "deadly"


def begun(folder: Path) -> Simulation:
    folder.mkdir()
    sim = Simulation(folder, migrated())
    sim.world.indigestible.add(DEADLY)
    return sim


def telling(kind: str, content: str, more: dict[str, Any]) -> dict[str, Any]:
    return package(kind, files=[{"path": "/conf" if kind == "docker" else "conf", "content": content, "on_change": "signal"}], **more)


def contents(sim: Simulation) -> list[str | None]:
    return [decode(thing.record).pkg.files[0].content for thing in sim.world.things.values()]


def cut_at_every_step(tmp_path: Path, kind: str, more: dict[str, Any], content: str) -> Iterator[tuple[int, Simulation]]:
    """After a first content has been good, ``content`` comes, and the agent dies at its first step, its second, and so on."""
    cut, crashed = 0, True
    while crashed:
        cut += 1
        sim = begun(tmp_path / str(cut))
        deployed(sim, **telling(kind, "one", more) | {"kind": kind})
        sim.world.crash_at = sim.world.steps + cut
        sim.apply("web", "v1", **telling(kind, content, more))
        for _ in range(15):
            sim.mortally(sim.tick)
            sim.clock.advance(4)
        crashed, sim.world.crash_at = sim.world.crash_at is None, None
        sim.settle(10)
        yield cut, sim
        sim.close()


@pytest.mark.parametrize("strategy", ["recreate", "start-first"])
@pytest.mark.parametrize(("kind", "replicas", "probed"), [("docker", 2, True), ("binary", 1, True), ("binary", 3, False)])
def test_a_reload_cut_at_any_step_ends_alike_and_starts_nothing(
    kind: str, strategy: str, replicas: int, *, probed: bool, tmp_path: Path
) -> None:
    cut = 0
    for cut, sim in cut_at_every_step(tmp_path, kind, shaped(strategy, replicas, probed=probed), "two"):
        assert sim.shape() == [f"web.1.{replica} running" for replica in range(replicas)], f"cut at step {cut}"
        assert contents(sim) == ["two"] * replicas, f"cut at step {cut}"
        assert rows(sim) == [(1, "v1", "apply", "succeeded"), (2, "v1", "apply", "succeeded")], f"cut at step {cut}"
        assert (level(sim)[0], sim.world.begun) == (100, replicas), f"cut at step {cut}"
        assert "Exited" not in events(sim), f"cut at step {cut}"
    assert cut > 3 * replicas


@pytest.mark.parametrize("strategy", ["recreate", "start-first"])
@pytest.mark.parametrize(("kind", "replicas"), [("docker", 2), ("binary", 1), ("binary", 3)])
def test_a_content_that_kills_is_taken_back_and_most_never_hear_of_it(kind: str, strategy: str, replicas: int, tmp_path: Path) -> None:
    cut = 0
    for cut, sim in cut_at_every_step(tmp_path, kind, shaped(strategy, replicas, probed=False), DEADLY):
        assert sim.shape() == [f"web.1.{replica} running" for replica in range(replicas)], f"cut at step {cut}"
        assert contents(sim) == ["one"] * replicas, f"cut at step {cut}"
        assert stage(sim) is Stage.ROLLED_BACK, f"cut at step {cut}"
        assert rows(sim)[1:] == [(2, "v1", "apply", "rolled-back"), (1, "v1", "auto-rollback", "succeeded")], f"cut at step {cut}"
        assert len({effect for effect in sim.world.effects if effect.startswith("reload")}) == 1, f"cut at step {cut}"
    assert cut > 10


def lose_the_database(sim: Simulation) -> None:
    """Somebody deletes it while no agent runs."""
    sim.kill()
    for path in sim.database.parent.glob("agent.db*"):
        path.unlink()
    sim.database.write_bytes(migrated())
    sim.start()
    sim.acknowledged.clear()
    sim.settle()


def carried(sim: Simulation) -> list[tuple[str, int, str | None]]:
    """What there is, and as what."""
    found = ((thing.name, decode(thing.record)) for thing in sim.world.things.values())
    return [(str(name), revision.revision, revision.pkg.files[0].content) for name, revision in found]


@pytest.mark.parametrize("kind", ["docker", "binary"])
def test_without_its_database_an_agent_goes_by_what_instances_have_become(kind: str, tmp_path: Path) -> None:
    sim = begun(tmp_path / "sim")
    deployed(sim, **telling(kind, "one", {}) | {"kind": kind})
    sim.apply("web", "v1", **telling(kind, "two", {}))
    sim.settle()
    lose_the_database(sim)
    head = sim.store.heads["web"]
    assert (head.revision.revision, head.revision.pkg.files[0].content, level(sim)[0]) == (2, "two", 100)
    assert (carried(sim), sim.world.begun) == ([("web.1.0", 2, "two")], 1)
    sim.close()


@pytest.mark.parametrize("kind", ["docker", "binary"])
def test_what_went_back_to_an_older_revision_than_its_name_is_managed_all_the_same(kind: str, tmp_path: Path) -> None:
    sim = begun(tmp_path / "sim")
    two = {"replicas": 2}
    deployed(sim, **telling(kind, "one", two) | {"kind": kind})
    sim.clock.advance(100)
    sim.tick()
    (second,) = (thing for thing in sim.world.things.values() if thing.name.replica == 1)
    sim.world.end(second, code=1)  # so it is made anew for the next revision, which is never ready
    sim.world.sick.add(("web", "v1", "readiness"))
    sim.apply("web", "v1", **telling(kind, "two", two | {"health": {"readiness": {"tcp": {"port": 80}}}}))
    sim.settle(80)
    assert stage(sim) is Stage.ROLLED_BACK
    assert carried(sim) == [("web.1.0", 1, "one"), ("web.2.1", 1, "one")]
    lose_the_database(sim)
    assert (sim.store.heads["web"].revision.revision, level(sim)[0]) == (1, 100)
    for thing in sim.world.running("web"):
        sim.world.end(thing, code=1)
    sim.settle(20)
    assert (len(sim.world.running("web")), level(sim)[0]) == (2, 90)  # restarted not long ago
    sim.close()


@pytest.mark.parametrize("kind", ["docker", "binary"])
def test_the_end_of_what_was_told_is_on_record_though_a_start_takes_its_name(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It dies at the very moment from which on the older revision is to run again."""
    sim = begun(tmp_path / "sim")
    more = {"replicas": 2, "health": {"readiness": {"tcp": {"port": 80}}}}
    deployed(sim, **telling(kind, "one", more) | {"kind": kind})
    sim.apply("web", "v1", **telling(kind, "two", more))
    while stage(sim) is not Stage.SUCCEEDED:
        sim.tick()
        sim.clock.advance(3)
    sim.world.sick.add(("web", "v1", "readiness"))  # within the watch, so it goes back
    real = rollout.turns

    def turns(before: Any, after: Any) -> bool:
        turned = real(before, after)
        second = sim.world.things[InstanceName("web", 1, 1)]
        if turned and second.phase is Phase.RUNNING:
            sim.world.end(second, code=7)
        return turned

    monkeypatch.setattr(rollout, "turns", turns)
    while stage(sim) is Stage.SUCCEEDED:
        sim.tick()
        sim.clock.advance(3)
    sim.world.sick.clear()
    sim.settle(10)
    assert (stage(sim), carried(sim)) == (Stage.ROLLED_BACK, [("web.1.0", 1, "one"), ("web.1.1", 1, "one")])
    assert [row["exit_code"] for row in sim.run(sim.store.exits("web"))] == [7]
    sim.close()

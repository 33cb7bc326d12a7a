"""Rollouts on the simulated world, whole and cut at every step: a bad version never takes a good one down for long."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from boreas_agent.model import Stage, Status
from tests.simulation import Simulation, migrated, package

START_FIRST = {"rollout": {"strategy": "start-first"}}


@pytest.fixture
def sim(tmp_path: Path) -> Iterator[Simulation]:
    simulation = Simulation(tmp_path, migrated())
    simulation.world.programs["web", "bad"] = 3
    yield simulation
    simulation.close()


def deployed(sim: Simulation, kind: str = "docker", version: str = "v1", **more: Any) -> None:
    """``version`` is applied and healthy."""
    sim.apply("web", version, **package(kind, **more))
    sim.settle()
    assert sim.store.heads["web"].health.level == 100


def rows(sim: Simulation) -> list[tuple[Any, ...]]:
    """The deployments, oldest first, as anybody may read them."""
    found = sim.run(sim.store.deployments("web"))
    return [(row["revision"], row["version"], row["kind"], row["outcome"]) for row in reversed(found)]


def events(sim: Simulation) -> list[str]:
    return [event["kind"] for event in sim.run(sim.store.events("web", limit=500))]


def level(sim: Simulation) -> tuple[int, Status]:
    health = sim.store.heads["web"].health
    return health.level, health.status


def stage(sim: Simulation) -> Stage | None:
    deployment = sim.store.heads["web"].deployment
    return deployment.stage if deployment else None


@pytest.mark.parametrize("more", [{}, START_FIRST], ids=["recreate", "start-first"])
@pytest.mark.parametrize("kind", ["docker", "binary"])
def test_a_version_that_exits_at_once_is_rolled_back(sim: Simulation, kind: str, more: dict[str, Any]) -> None:
    deployed(sim, kind, **more)
    sim.apply("web", "bad", **package(kind, **more))
    sim.settle()
    head = sim.store.heads["web"]
    assert sim.shape() == ["web.1.0 running"]
    assert (head.revision.version, head.running.version, level(sim)) == ("bad", "v1", (70, Status.DEGRADED))
    assert head.health.msg == (
        "revision 1 (v1) serves again; revision 2 (bad) failed and is blocked: crash-looping: exited with code 3, 3 times in a row"
    )
    assert rows(sim) == [(1, "v1", "apply", "succeeded"), (2, "bad", "apply", "rolled-back"), (1, "v1", "auto-rollback", "succeeded")]
    assert [kind for kind in events(sim) if kind.startswith(("Deployment", "Roll"))] == [
        "DeploymentSucceeded",
        "DeploymentFailed",
        "RolledBack",
    ]


def test_a_version_whose_image_is_missing_never_touches_the_old_one(sim: Simulation) -> None:
    deployed(sim)
    before = list(sim.world.effects)
    sim.world.missing.add(("web", "v2"))
    sim.apply("web", "v2", **package("docker"))
    sim.tick()
    sim.tick()
    assert (stage(sim), sim.world.effects) == (Stage.ROLLED_BACK, before)
    assert "no such image" in sim.store.heads["web"].health.msg


def test_a_blocked_version_is_not_tried_again_until_it_is_forced_or_restarted(sim: Simulation) -> None:
    deployed(sim)
    sim.apply("web", "bad", **package("docker"))
    sim.settle()
    sim.kill()
    sim.start()
    begun = sim.world.begun
    receipt = sim.apply("web", "bad", **package("docker"))
    sim.settle()
    assert (receipt.changed, receipt.revision, sim.world.begun) == (False, 2, begun)
    assert 'apply it with "force": true' in receipt.message
    sim.world.programs["web", "bad"] = None
    assert sim.apply("web", "bad", force=True, **package("docker")).revision == 3
    sim.settle()
    assert (sim.shape(), level(sim)) == (["web.3.0 running"], (100, Status.RUNNING))


def test_a_restart_lifts_the_block(sim: Simulation) -> None:
    deployed(sim)
    sim.apply("web", "bad", **package("docker"))
    sim.settle()
    sim.world.programs["web", "bad"] = None
    sim.run(sim.store.restart("web", "test"))
    sim.settle()
    assert (sim.shape(), level(sim)) == (["web.3.0 running"], (100, Status.RUNNING))


def test_what_is_back_is_kept_when_it_is_asked_for_again(sim: Simulation) -> None:
    deployed(sim)
    sim.apply("web", "bad", **package("docker"))
    sim.settle()
    begun = sim.world.begun
    sim.apply("web", "v1", **package("docker"))
    sim.settle()
    assert (sim.shape(), sim.world.begun, level(sim)) == (["web.1.0 running"], begun, (100, Status.RUNNING))
    assert rows(sim)[-1] == (3, "v1", "apply", "succeeded")


def test_without_an_older_healthy_revision_it_fails_and_goes_on_being_tried(sim: Simulation) -> None:
    sim.apply("web", "bad", **package("docker"))
    sim.settle()
    assert (stage(sim), level(sim)) == (Stage.FAILED, (0, Status.FAILED))
    sim.world.programs["web", "bad"] = None
    for _ in range(10):
        sim.clock.advance(15)
        sim.tick()
    assert level(sim) in [(90, Status.RUNNING), (100, Status.RUNNING)]
    assert rows(sim) == [(1, "bad", "apply", "succeeded")]


def test_automatic_rollback_can_be_switched_off(sim: Simulation) -> None:
    deployed(sim)
    sim.apply("web", "bad", **package("docker", rollout={"auto_rollback": False}))
    sim.settle()
    assert (stage(sim), level(sim)) == (Stage.FAILED, (0, Status.FAILED))


def test_a_rollback_is_not_chained_to_older_revisions(sim: Simulation) -> None:
    deployed(sim, version="v1")
    deployed(sim, version="v2")
    sim.apply("web", "bad", **package("docker"))
    sim.world.programs["web", "v2"] = 1
    sim.settle()
    assert (stage(sim), level(sim)) == (Stage.ROLLBACK_FAILED, (0, Status.FAILED))
    assert sim.store.heads["web"].running.version == "v2"
    assert rows(sim)[-2:] == [(3, "bad", "apply", "rollback-failed"), (2, "v2", "auto-rollback", "failed")]
    assert "revision 2 (v2) did not come back: crash-looping: exited with code 1" in sim.store.heads["web"].health.msg


def fall_over(sim: Simulation) -> None:
    for thing in sim.world.running("web"):
        sim.world.end(thing, code=9)


def test_what_is_gone_back_to_was_healthy_without_a_break_and_not_just_for_long_in_all(sim: Simulation) -> None:
    deployed(sim)
    sim.apply("web", "v2", **package("docker"))
    for _ in range(2):  # twice 8 seconds, where 10 in a row are healthy
        while not any(thing.version == "v2" for thing in sim.world.running("web")):
            sim.tick()
            sim.clock.advance(1)
        for _ in range(4):
            sim.clock.advance(2)
            sim.tick()
        fall_over(sim)
        sim.tick()
    assert stage(sim) is Stage.VERIFYING
    sim.apply("web", "bad", **package("docker"))
    sim.settle()
    assert (stage(sim), sim.shape()) == (Stage.ROLLED_BACK, ["web.1.0 running"])
    assert [row[3] for row in rows(sim)] == ["succeeded", "superseded", "rolled-back", "succeeded"]


def test_a_version_whose_probe_passes_now_and_then_is_not_gone_back_to(sim: Simulation) -> None:
    flapping = {"health": {"readiness": {"exec": {"command": ["/bin/true"]}, "failure_threshold": 1}}}
    deployed(sim, **flapping)
    sim.apply("web", "v2", **package("docker", **flapping))
    for _ in range(8):  # 6 seconds ready, 2 seconds not
        sim.world.sick.discard(("web", "v2", "readiness"))
        for _ in range(3):
            sim.tick()
            sim.clock.advance(2)
        sim.world.sick.add(("web", "v2", "readiness"))
        sim.tick()
        assert level(sim)[0] < 80
        sim.clock.advance(2)
    sim.apply("web", "bad", **package("docker", **flapping))
    sim.settle()
    assert (stage(sim), sim.shape()) == (Stage.ROLLED_BACK, ["web.1.0 running"])


def test_of_several_healthy_versions_the_newest_older_one_is_gone_back_to(sim: Simulation) -> None:
    for version in ("v1", "v2", "v3"):
        deployed(sim, version=version)
    sim.apply("web", "bad", **package("docker"))
    sim.settle()
    assert sim.shape() == ["web.3.0 running"]
    sim.apply("web", "bad", **package("docker", environment={"TRY": "2"}))  # what failed is nothing to go back to
    sim.settle()
    assert (stage(sim), sim.shape()) == (Stage.ROLLED_BACK, ["web.3.0 running"])


def test_how_long_a_version_is_watched_is_a_setting(sim: Simulation) -> None:
    def rolled(version: str, watch_seconds: float) -> Stage | None:
        deployed(sim, version=version, rollout={"watch_seconds": watch_seconds})
        for _ in range(2):
            sim.clock.advance(10)
            sim.tick()
        sim.world.programs["web", version] = 9
        fall_over(sim)
        for _ in range(6):
            sim.tick()
            sim.clock.advance(5)
        return stage(sim)

    deployed(sim)
    assert rolled("v2", 15) is Stage.SUCCEEDED
    sim.world.programs.clear()
    deployed(sim, version="v1")
    assert rolled("v2", 300) is Stage.ROLLED_BACK
    assert level(sim) == (70, Status.DEGRADED)


@pytest.mark.parametrize(("old", "new"), [("script", "docker"), ("docker", "script")])
def test_nothing_is_rolled_back_from_or_to_a_script(sim: Simulation, old: str, new: str) -> None:
    """What an older script did must not be done again."""
    sim.world.programs["web", "v1"] = 0 if old == "script" else None
    sim.apply("web", "v1", **package(old))
    sim.settle()
    assert level(sim)[0] == 100
    sim.apply("web", "bad", **package(new))
    sim.settle()
    assert (stage(sim), level(sim)) == (Stage.FAILED, (0, Status.FAILED))
    assert sim.world.runs.get(("web", 1)) == ([0] if old == "script" else None)


def test_a_script_is_never_rolled_back(sim: Simulation) -> None:
    sim.world.programs.update({("web", "v1"): 0})
    sim.apply("web", "v1", **package("script"))
    sim.settle()
    sim.apply("web", "bad", **package("script"))
    sim.settle()
    assert sim.world.runs == {("web", 1): [0], ("web", 2): [3, 3, 3]}
    assert rows(sim) == [(1, "v1", "apply", "succeeded"), (2, "bad", "apply", "failed")]


def test_a_version_that_falls_over_while_it_is_watched_is_rolled_back(sim: Simulation) -> None:
    deployed(sim)
    deployed(sim, version="v2")
    assert stage(sim) is Stage.SUCCEEDED
    sim.world.programs["web", "v2"] = 9
    for thing in sim.world.running("web"):
        sim.world.end(thing, code=9)
    sim.settle()
    assert (stage(sim), sim.shape()) == (Stage.ROLLED_BACK, ["web.1.0 running"])
    assert rows(sim)[1:] == [(2, "v2", "apply", "rolled-back"), (1, "v1", "auto-rollback", "succeeded")]
    assert "fell over within 60 s of its success: crash-looping: exited with code 9" in sim.store.heads["web"].health.msg


def test_a_version_that_fell_over_long_after_its_success_stays(sim: Simulation) -> None:
    deployed(sim)
    deployed(sim, version="v2")
    for _ in range(3):
        sim.clock.advance(30)
        sim.tick()
    sim.kill()
    sim.start()
    sim.world.programs["web", "v2"] = 9
    for thing in sim.world.running("web"):
        sim.world.end(thing, code=9)
    for _ in range(6):
        sim.tick()
        sim.clock.advance(11)
    assert (stage(sim), level(sim)) == (Stage.SUCCEEDED, (0, Status.FAILED))


def test_a_rollout_never_ready_fails_at_its_deadline_of_time_that_the_agent_saw(sim: Simulation) -> None:
    deployed(sim)
    sim.world.stuck.add(("web", "v2"))
    sim.apply("web", "v2", **package("docker"))
    sim.tick()
    for hours in (-24, 1, 1000):  # the wall clock says nothing
        sim.clock.wall += timedelta(hours=hours)
        sim.tick()
    sim.kill()
    sim.clock.advance(3600)  # nor does time without an agent
    sim.start()
    sim.tick()
    sim.world.away.add("docker")
    sim.clock.advance(50)
    sim.tick()
    sim.clock.advance(3600)  # nor while nobody can look
    sim.world.away.discard("docker")
    sim.tick()
    assert stage(sim) in (Stage.PENDING, Stage.STARTING)
    seen = 0
    while stage(sim) is not Stage.ROLLED_BACK and seen < 400:
        sim.clock.advance(10)
        seen += 10
        sim.tick()
    assert 230 <= seen <= 320
    assert "not healthy within 300 s" in sim.store.heads["web"].health.msg


READY = {"health": {"readiness": {"exec": {"command": ["/bin/true"]}, "failure_threshold": 2}}}


def heal(sim: Simulation) -> None:
    """What has begun to work is found working."""
    for _ in range(20):
        sim.tick()
        if sim.store.heads["web"].health.level == 100:
            return
        sim.clock.advance(11)
    raise AssertionError(sim.store.heads["web"].health)


def test_what_was_restored_is_not_said_to_serve_before_its_probes_have_passed(sim: Simulation) -> None:
    deployed(sim, **READY)
    sim.world.sick.add(("web", "v1", "readiness"))
    sim.apply("web", "bad", **package("docker", **READY))
    while not (sim.shape() == ["web.1.0 running"] and stage(sim) is Stage.ROLLING_BACK):
        sim.tick()
        sim.clock.advance(1)
    for _ in range(5):
        sim.tick()
        assert level(sim)[0] < 50, sim.store.heads["web"].health
        sim.clock.advance(11)
    sim.world.sick.clear()
    sim.settle()
    assert level(sim) == (70, Status.DEGRADED)


def test_what_served_all_the_while_is_said_to_serve_through_the_rollback(sim: Simulation) -> None:
    deployed(sim, **READY)
    sim.world.missing.add(("web", "v2"))
    sim.apply("web", "v2", **package("docker", **READY))
    for _ in range(12):
        sim.tick()
        assert 50 <= level(sim)[0] < 80, sim.store.heads["web"].health
        sim.clock.advance(2)
    assert stage(sim) is Stage.ROLLED_BACK


@pytest.mark.parametrize(
    "more", [{}, START_FIRST, READY, READY | START_FIRST], ids=["recreate", "start-first", "probed", "probed start-first"]
)
@pytest.mark.parametrize("kind", ["docker", "binary"])
def test_old_ends_of_the_good_version_do_not_count_against_its_coming_back(sim: Simulation, kind: str, more: dict[str, Any]) -> None:
    sim.world.programs["web", "v1"] = 1  # until what it needs is there
    sim.apply("web", "v1", **package(kind, **more))
    for _ in range(4):
        sim.tick()
        sim.clock.advance(5)
    sim.world.programs["web", "v1"] = None
    heal(sim)
    sim.apply("web", "bad", **package(kind, **more))
    for _ in range(20):
        sim.tick()
        sim.tick()  # asks what has been started by the first one
        if sim.shape() == ["web.1.0 running"]:
            assert level(sim)[0] >= 50, sim.store.heads["web"].health
        sim.clock.advance(2)
    sim.settle()
    assert (stage(sim), level(sim)) == (Stage.ROLLED_BACK, (70, Status.DEGRADED)), sim.store.heads["web"].health


@pytest.mark.parametrize("more", [{}, START_FIRST], ids=["recreate", "start-first"])
@pytest.mark.parametrize("kind", ["docker", "binary"])
def test_replicas_roll_one_after_the_other(sim: Simulation, kind: str, more: dict[str, Any]) -> None:
    deployed(sim, kind, replicas=3, **more)
    fewest, most = (3, 4) if more else (2, 3)
    sim.apply("web", "v2", **package(kind, replicas=3, **more))
    for _ in range(20):
        sim.tick()
        assert fewest <= sim.alive("web") <= most, sim.shape()
        sim.clock.advance(4)
    assert sim.shape() == [f"web.2.{replica} running" for replica in range(3)]
    assert level(sim) == (100, Status.RUNNING)


def test_a_bad_version_takes_no_more_replicas_with_it_than_may_be_missing(sim: Simulation) -> None:
    deployed(sim, replicas=3)
    sim.apply("web", "bad", **package("docker", replicas=3))
    for _ in range(30):
        sim.tick()
        assert sum(thing.version == "v1" for thing in sim.world.running("web")) >= 2
        sim.clock.advance(2)
    assert sim.shape() == [f"web.1.{replica} running" for replica in range(3)]
    assert stage(sim) is Stage.ROLLED_BACK


def test_a_newer_revision_supersedes_a_rollout_and_a_rollback(sim: Simulation) -> None:
    deployed(sim)
    sim.apply("web", "v2", **package("docker"))
    sim.apply("web", "bad", **package("docker"))
    while stage(sim) is not Stage.ROLLING_BACK:
        sim.tick()
        sim.clock.advance(1)
    sim.apply("web", "v4", **package("docker"))
    sim.settle()
    assert [row[3] for row in rows(sim)] == ["succeeded", "superseded", "superseded", "succeeded"]
    assert sim.shape() == ["web.4.0 running"]


def test_a_rollback_by_hand_keeps_what_runs_of_it_and_is_a_revision_of_its_own(sim: Simulation) -> None:
    deployed(sim)
    deployed(sim, version="v2")
    receipt = sim.roll_back("web")
    assert receipt is not None
    assert (receipt.version, receipt.revision) == ("v1", 3)
    sim.settle()
    assert sim.shape() == ["web.3.0 running"]
    assert rows(sim)[-1] == (3, "v1", "rollback", "succeeded")
    assert sim.roll_back("web") is not None  # to v2, which was healthy before
    assert sim.store.heads["web"].revision.version == "v2"


def test_a_removal_is_a_deployment_too(sim: Simulation) -> None:
    deployed(sim)
    sim.remove("web")
    sim.settle()
    assert rows(sim)[-1] == (2, "v1", "remove", "succeeded")


def test_start_first_scales_down_to_what_is_not_there_without_a_moment_with_none(sim: Simulation) -> None:
    """Of three replicas two have left for a version that failed; then the old one is asked for again, once."""
    deployed(sim, replicas=3)
    sim.apply("web", "bad", **package("docker", replicas=2))
    while len(sim.world.serving("web")) != 1:
        sim.tick()
        sim.clock.advance(1)
    sim.apply("web", "v1", **package("docker", **START_FIRST))
    for _ in range(5):
        sim.tick()
        assert sim.world.serving("web"), sim.shape()
        assert level(sim)[0] >= 50, sim.store.heads["web"].health
        sim.clock.advance(4)
    sim.settle()
    assert (sim.alive("web"), level(sim)[0]) == (1, 100)


@pytest.mark.parametrize("pause", [0.2, 1.0, 5.0])
@pytest.mark.parametrize("probed", [False, True])
@pytest.mark.parametrize("before", [START_FIRST, {}], ids=["start-first before", "recreate before"])
@pytest.mark.parametrize("kind", ["docker", "binary"])
def test_replicas_that_are_too_many_after_a_fallback_serve_until_the_wanted_one_does(
    sim: Simulation, kind: str, before: dict[str, Any], *, probed: bool, pause: float
) -> None:
    """From one replica to three of the same make; the first one dies until the deployment has failed, and one is wanted again."""
    probes = READY if probed else {}
    deployed(sim, kind, **before, **probes)
    sim.apply("web", "v1", **package(kind, replicas=3, **START_FIRST, **probes))
    sim.tick()
    kills = 0
    while stage(sim) is not Stage.ROLLED_BACK:
        first = next((thing for thing in sim.world.running("web") if thing.name.replica == 0), None)
        if first is not None and kills < 3 and sim.alive("web") == 3:
            sim.world.end(first, code=3)
            kills += 1
        sim.clock.advance(pause)
        sim.tick()
        assert sim.world.serving("web"), sim.shape()
    sim.settle()
    assert (kills, sim.shape(), level(sim)) == (3, ["web.1.0 running"], (70, Status.DEGRADED))


BADNESS = {"exits at once": "bad", "is never ready": "sick", "is not there": "missing"}
QUICKLY = {"min_healthy_seconds": 4, "progress_deadline_seconds": 20}


def shaped(strategy: str, replicas: int, *, probed: bool) -> dict[str, Any]:
    return {"replicas": replicas, "rollout": {"strategy": strategy, **QUICKLY}, **(READY if probed else {})}


@pytest.mark.parametrize("strategy", ["recreate", "start-first"])
@pytest.mark.parametrize(
    ("kind", "how", "replicas", "probed"),
    [
        ("docker", "exits at once", 1, False),
        ("binary", "exits at once", 1, True),
        ("binary", "exits at once", 2, False),
        ("docker", "is never ready", 2, True),
        ("binary", "is never ready", 1, True),
        ("docker", "is not there", 2, False),
    ],
)
def test_a_rollback_cut_at_any_step_ends_alike(kind: str, strategy: str, how: str, replicas: int, *, probed: bool, tmp_path: Path) -> None:
    """Under start-first the world sees to it that at no step the last instance that serves is stopped."""
    more, version = shaped(strategy, replicas, probed=probed), BADNESS[how]
    shape = [f"web.1.{replica} running" for replica in range(replicas)]
    cut, crashed = 0, True
    while crashed:
        cut += 1
        folder = tmp_path / str(cut)
        folder.mkdir()
        sim = Simulation(folder, migrated())
        sim.world.programs["web", "bad"] = 3
        sim.world.sick.add(("web", "sick", "readiness"))
        sim.world.missing.add(("web", "missing"))
        deployed(sim, kind, **more)
        sim.world.crash_at = sim.world.steps + cut
        sim.apply("web", version, **package(kind, **more))
        for _ in range(15):
            sim.mortally(sim.tick)
            if strategy == "start-first":
                assert len(sim.world.serving("web")) >= replicas, f"cut at step {cut}: {sim.shape()}"
            assert level(sim)[0] < 80, f"cut at step {cut}"
            sim.clock.advance(4)
        crashed, sim.world.crash_at = sim.world.crash_at is None, None
        sim.settle(10)
        assert (sim.shape(), stage(sim)) == (shape, Stage.ROLLED_BACK), f"cut at step {cut}"
        assert rows(sim)[1:] == [(2, version, "apply", "rolled-back"), (1, "v1", "auto-rollback", "succeeded")], f"cut at step {cut}"
        assert events(sim).count("RolledBack") == 1, f"cut at step {cut}"
        sim.close()
    assert cut > {"exits at once": 15, "is never ready": 10, "is not there": 4}[how]


@pytest.mark.parametrize("strategy", ["recreate", "start-first"])
@pytest.mark.parametrize(("kind", "replicas", "probed"), [("docker", 2, True), ("binary", 1, True), ("binary", 3, False)])
def test_a_rollout_cut_at_any_step_ends_alike(kind: str, strategy: str, replicas: int, *, probed: bool, tmp_path: Path) -> None:
    more = shaped(strategy, replicas, probed=probed)
    cut, crashed = 0, True
    while crashed:
        cut += 1
        folder = tmp_path / str(cut)
        folder.mkdir()
        sim = Simulation(folder, migrated())
        deployed(sim, kind, **more)
        sim.world.crash_at = sim.world.steps + cut
        sim.apply("web", "v2", **package(kind, **more))
        for _ in range(15):
            sim.mortally(sim.tick)
            if strategy == "start-first":
                assert len(sim.world.serving("web")) >= replicas, f"cut at step {cut}: {sim.shape()}"
            sim.clock.advance(4)
        crashed, sim.world.crash_at = sim.world.crash_at is None, None
        sim.settle(10)
        assert sim.shape() == [f"web.2.{replica} running" for replica in range(replicas)], f"cut at step {cut}"
        assert rows(sim) == [(1, "v1", "apply", "succeeded"), (2, "v2", "apply", "succeeded")], f"cut at step {cut}"
        assert (level(sim)[0], sim.world.begun) == (100, 2 * replicas), f"cut at step {cut}"
        sim.close()
    assert cut > 8 * replicas

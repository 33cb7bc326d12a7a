"""Checks, timeouts and schedules, cut at every step of the agent and finished by its successor; and on days on which the clock is set."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from boreas_agent.model import Phase, Status
from tests.simulation import Simulation, package


@contextmanager
def simulation(folder: Path) -> Iterator[Simulation]:
    folder.mkdir(exist_ok=True)
    sim = Simulation(folder)
    try:
        yield sim
    finally:
        sim.close()


def sweep(tmp_path: Path, scenario: Callable[[Simulation], None], proof: Callable[[Simulation, int], None], least: int) -> None:
    """Run ``scenario`` with the agent dying at its first step, its second, and so on until it lives through it."""
    cut, crashed = 0, True
    while crashed:
        cut += 1
        with simulation(tmp_path / str(cut)) as sim:
            sim.world.crash_at = cut
            scenario(sim)
            crashed, sim.world.crash_at = sim.world.crash_at is None, None
            proof(sim, cut)
    assert cut > least, "the sweep ended before it had begun"


def live(sim: Simulation, *seconds: float) -> None:
    """Ticks with so much time between them."""
    for gap in seconds:
        sim.mortally(sim.tick)
        sim.clock.advance(gap)


def settled(sim: Simulation, ticks: int = 6) -> None:
    for _ in range(ticks):
        sim.tick()
        sim.clock.advance(11)


def rows(sim: Simulation, query: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(sim.database)) as database:
        return database.execute(query).fetchall()


def health(sim: Simulation) -> str:
    known = sim.store.heads["job"].health
    return f"{known.level} {known.status} {known.msg}"


CHECK = package("script", check="test -e /f", check_interval_seconds=30)
EVERY_MINUTE = package("script", schedule="* * * * *")


# --- check -----------------------------------------------------------------------------------------


def test_drift_is_repaired_by_one_run_wherever_the_agent_dies(tmp_path: Path) -> None:
    def scenario(sim: Simulation) -> None:
        sim.world.programs["job", "v1"] = 0
        sim.apply("job", "v1", **CHECK)
        live(sim, 5, 5, 5)
        sim.world.states["job"] = 1
        live(sim, 20, 20, 5)

    def proof(sim: Simulation, cut: int) -> None:
        settled(sim)
        assert health(sim) == "100 completed completed: check passed", cut
        assert sim.world.runs["job", 1] in ([0], [0, 0]), f"cut at step {cut}: {sim.world.runs}"
        assert [outcome for (outcome,) in rows(sim, "SELECT outcome FROM v_runs")] == ["succeeded"] * len(sim.world.runs["job", 1])

    sweep(tmp_path, scenario, proof, 15)


def test_a_check_that_passes_from_the_beginning_runs_nothing(tmp_path: Path) -> None:
    with simulation(tmp_path) as sim:
        sim.world.states["job"] = 0
        sim.apply("job", "v1", **CHECK)
        settled(sim, 20)
        assert health(sim) == "100 completed completed: check passed"
        assert (sim.world.runs, sim.shape(), rows(sim, "SELECT * FROM v_runs")) == ({}, ["job.1.0 created"], [])
        assert 6 <= sim.world.asked <= 8, "about every 30 s"
        deployment = sim.store.heads["job"].deployment
        assert deployment is not None
        assert deployment.stage == "succeeded"
        assert len(rows(sim, "SELECT * FROM v_health WHERE app = 'job'")) <= 3
        sim.remove("job")
        sim.settle()
        assert sim.shape() == []


def test_drift_has_its_cause_in_the_history_and_is_counted(tmp_path: Path) -> None:
    with simulation(tmp_path) as sim:
        sim.world.programs["job", "v1"] = 0
        sim.apply("job", "v1", **CHECK)
        settled(sim)
        sim.world.states["job"] = 1
        settled(sim)
        started = [message for (message,) in rows(sim, "SELECT message FROM v_events WHERE kind = 'Started' ORDER BY id")]
        assert started == ["started job.1.0: check exited with code 1: said", "started job.1.0: drift: check exited with code 1: said"]
        assert sim.store.heads["job"].attempts[0].restarts == 1
        assert health(sim) == "100 completed completed: check passed"


def test_a_script_that_does_not_help_has_its_attempts_and_is_healed_by_whoever_helps(tmp_path: Path) -> None:
    with simulation(tmp_path) as sim:
        sim.world.programs["job", "v1"] = 0
        sim.world.useless.add("job")
        sim.apply("job", "v1", **CHECK)
        settled(sim, 20)
        assert sim.world.runs["job", 1] == [0, 0, 0]
        assert health(sim) == "0 failed exited with code 0, and yet check exited with code 1: said"
        deployment = sim.store.heads["job"].deployment
        assert deployment is not None
        assert (deployment.stage, deployment.reason) == ("failed", "exited with code 0, and yet check exited with code 1: said")
        sim.world.states["job"] = 0
        settled(sim)
        assert health(sim) == "100 completed completed: check passed"
        assert sim.world.runs["job", 1] == [0, 0, 0]


def test_a_check_that_cannot_be_asked_is_a_failure_with_backoff_and_never_drift(tmp_path: Path) -> None:
    with simulation(tmp_path) as sim:
        sim.world.mute.add("job")
        sim.apply("job", "v1", **CHECK)
        settled(sim, 30)
        assert health(sim) == "0 failed cannot ask the check of job.1.0: the command did not end within 60 s"
        assert sim.world.runs == {}
        assert 5 <= sim.world.asked <= 12, "330 s with delays up to 60 s"
        failed = rows(sim, "SELECT message FROM v_events WHERE kind = 'CheckFailed'")
        assert failed == [("cannot ask the check of job.1.0: the command did not end within 60 s",)], "once, not each time"
        sim.world.mute.clear()
        sim.world.programs["job", "v1"] = 0
        settled(sim, 8)
        assert health(sim) == "100 completed completed: check passed"


def test_after_a_run_of_which_nobody_knows_the_end_the_check_decides(tmp_path: Path) -> None:
    for good in (False, True):
        with simulation(tmp_path / str(good)) as sim:
            sim.apply("job", "v1", **CHECK)
            sim.tick()
            sim.kill()
            sim.world.reboot()
            sim.start()
            sim.world.states["job"] = 0 if good else 1
            settled(sim)
            assert sim.world.runs["job", 1] == ["lost"], "it is not run again by itself"
            assert health(sim).startswith("100 completed completed: check passed" if good else "0 failed outcome unknown: ")
            assert rows(sim, "SELECT outcome FROM v_runs") == [("unknown",)]
            sim.world.programs["job", "v1"] = 0
            sim.world.states["job"] = 0
            settled(sim)
            sim.world.states["job"] = 1
            settled(sim)
            assert sim.world.runs["job", 1] == ["lost", 0], "once it has passed, drift is repaired"


# --- timeout ---------------------------------------------------------------------------------------


def test_a_run_that_takes_too_long_has_that_cause_wherever_the_agent_dies(tmp_path: Path) -> None:
    def scenario(sim: Simulation) -> None:
        sim.apply("job", "v1", **package("script", timeout_seconds=20, retries=0))
        live(sim, 15, 10, 1)

    def proof(sim: Simulation, cut: int) -> None:
        settled(sim)
        assert health(sim) == "0 failed timed out after 20 s", cut
        assert len(sim.world.runs["job", 1]) == 1
        assert rows(sim, "SELECT outcome, reason FROM v_runs") == [("timed-out", "stopped: timed out after 20 s")], cut
        assert rows(sim, "SELECT reason FROM v_exits") == [("stopped: timed out after 20 s",)], cut

    sweep(tmp_path, scenario, proof, 8)


# --- schedule --------------------------------------------------------------------------------------


def runs(sim: Simulation) -> list[tuple[str | None, str]]:
    """Minutes and outcomes of the runs, as they came."""
    return [(at and at[11:16], outcome) for at, outcome in rows(sim, "SELECT scheduled_at, outcome FROM v_runs ORDER BY scheduled_at, id")]


def test_a_scheduled_time_is_run_for_once_wherever_the_agent_dies(tmp_path: Path) -> None:
    def scenario(sim: Simulation) -> None:
        sim.world.programs["job", "v1"] = 0
        sim.apply("job", "v1", **EVERY_MINUTE)
        live(sim, 30, 31, 29, 31, 29, 31)

    def proof(sim: Simulation, cut: int) -> None:
        sim.tick()
        ran = Counter(at for at, outcome in runs(sim) if outcome == "succeeded")
        assert set(ran.values()) == {1}, f"cut at step {cut}: {runs(sim)}"
        assert len(sim.world.runs["job", 1]) == len(ran), f"cut at step {cut}: a run that is not on record"
        assert set(ran) >= {"00:01", "00:03"}, f"cut at step {cut}: {runs(sim)}"
        assert health(sim).startswith("100 completed completed: exited with code 0; next run at 2026-03-01T00:0"), cut

    sweep(tmp_path, scenario, proof, 10)


def test_a_scheduled_run_that_fails_is_tried_again_and_the_next_good_one_heals(tmp_path: Path) -> None:
    with simulation(tmp_path) as sim:
        sim.world.programs["job", "v1"] = 7
        sim.apply("job", "v1", **package("script", schedule="* * * * *", retries=1))
        sim.tick()
        assert health(sim) == "100 completed waiting for its first run; next run at 2026-03-01T00:01:00.000Z"
        deployment = sim.store.heads["job"].deployment
        assert deployment is not None
        assert deployment.stage == "succeeded"
        sim.clock.advance(61)
        for _ in range(5):
            sim.tick()
            sim.clock.advance(5)
        assert runs(sim) == [("00:01", "failed"), ("00:01", "failed")]
        assert health(sim) == "0 failed exited with code 7; next run at 2026-03-01T00:02:00.000Z"
        sim.world.programs["job", "v1"] = 0
        sim.clock.advance(60)
        sim.tick()
        assert health(sim).startswith("100 completed")
        assert runs(sim)[2:] == [("00:02", "succeeded")]


@pytest.mark.parametrize("overlap", ["skip", "queue"])
def test_what_comes_while_a_run_goes_on_is_skipped_or_waits(tmp_path: Path, overlap: str) -> None:
    with simulation(tmp_path) as sim:
        sim.apply("job", "v1", **package("script", schedule={"cron": "* * * * *", "overlap": overlap}))
        for _ in range(4):
            sim.clock.advance(60)
            sim.tick()
        assert len(sim.world.runs["job", 1]) == 1, "never two at once"
        sim.world.programs["job", "v1"] = 0
        for thing in sim.world.running("job"):
            sim.world.end(thing, code=0)
        sim.tick()
        sim.tick()
        skipped = [("00:02", "skipped"), ("00:03", "skipped"), ("00:04", "skipped")]
        queued = [("00:02", "succeeded"), *skipped[1:]]
        assert runs(sim) == [("00:01", "succeeded"), *(queued if overlap == "queue" else skipped)]


def test_while_it_is_held_or_drained_nothing_runs_and_afterwards_what_was_missed_is_run_once(tmp_path: Path) -> None:
    with simulation(tmp_path) as sim:
        sim.world.programs["job", "v1"] = 0
        sim.apply("job", "v1", **EVERY_MINUTE)
        sim.run(sim.store.hold("job", "me", "", None))
        for _ in range(3):
            sim.clock.advance(60)
            sim.tick()
        sim.run(sim.store.drain("me", ""))
        sim.run(sim.store.release("job", "me"))
        for _ in range(3):
            sim.clock.advance(60)
            sim.tick()
        assert sim.world.runs == {}
        sim.run(sim.store.undrain("me"))
        sim.tick()
        sim.tick()
        assert runs(sim) == [*((f"00:0{minute}", "missed") for minute in range(1, 6)), ("00:06", "succeeded")]
        assert sim.world.runs["job", 1] == [0]


@pytest.mark.parametrize("jump", [timedelta(seconds=-40), timedelta(minutes=10), timedelta(days=-1), timedelta(days=400)])
def test_a_wall_clock_that_is_set_never_has_a_time_run_for_twice(tmp_path: Path, jump: timedelta) -> None:
    with simulation(tmp_path) as sim:
        sim.world.programs["job", "v1"] = 0
        sim.apply("job", "v1", **EVERY_MINUTE)
        for _ in range(6):
            sim.clock.advance(30)
            sim.tick()
        before = len(sim.world.runs["job", 1])
        sim.clock.wall += jump
        for _ in range(4):
            sim.tick()
            sim.clock.advance(30)
        times = [at for (at,) in rows(sim, "SELECT scheduled_at FROM v_runs WHERE outcome = 'succeeded'")]
        assert len(times) == len(set(times)) == len(sim.world.runs["job", 1])
        assert (len(times) == before) if jump < timedelta(minutes=-2) else len(times) > before - 1


def test_a_restart_runs_it_now_and_a_lost_database_runs_nothing_twice(tmp_path: Path) -> None:
    with simulation(tmp_path) as sim:
        sim.world.programs["job", "v1"] = 0
        sim.apply("job", "v1", **EVERY_MINUTE)
        sim.clock.advance(61)
        sim.tick()
        sim.acknowledged["job"] = sim.run(sim.store.restart("job", "me")).revision
        sim.clock.advance(2)
        sim.tick()
        assert runs(sim) == [(None, "succeeded"), ("00:01", "succeeded")]
        sim.kill()
        for file in tmp_path.glob("agent.db*"):
            file.unlink()
        sim.start()
        sim.tick()
        assert sim.world.runs == {("job", 1): [0], ("job", 2): [0]}
        sim.clock.advance(60)
        sim.tick()
        assert sim.world.runs["job", 2] == [0, 0]


def test_the_last_time_decided_on_survives_the_agent(tmp_path: Path) -> None:
    with simulation(tmp_path) as sim:
        sim.world.programs["job", "v1"] = 0
        sim.apply("job", "v1", **EVERY_MINUTE)
        sim.clock.advance(61)
        sim.tick()
        sim.kill()
        sim.start()
        sim.tick()
        assert len(sim.world.runs["job", 1]) == 1
        turn = sim.store.heads["job"].attempts[0].turn
        assert turn is not None
        assert turn.at == datetime.fromisoformat("2026-03-01T00:01:00+00:00")
        assert sim.store.heads["job"].health.status is Status.COMPLETED
        assert all(thing.phase is Phase.EXITED for thing in sim.world.things.values())

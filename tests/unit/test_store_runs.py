"""Runs of scripts in the history."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

from boreas_agent.model import Exit, InstanceName, ScriptRun
from boreas_agent.store.values import HistoryLimits
from tests.unit.store_harness import BY, opened, outcome, sql, submission
from tests.world import FakeClock

JOB = InstanceName("job", 1, 0)
T0 = FakeClock().wall
SCRIPT: dict[str, Any] = {"type": "script", "command": ["true"], "image": None}


def shown(path: Path) -> list[tuple[Any, ...]]:
    return sql(path, "SELECT scheduled_at, started_at, finished_at, exit_code, outcome, output_tail FROM v_runs ORDER BY id")


def test_a_run_that_goes_on_comes_to_its_end_once_and_keeps_its_time(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with opened(tmp_path) as store:
            await store.apply(submission("job", **SCRIPT), BY)
            await store.record(outcome(store, "job", runs=((JOB, ScriptRun("1", T0, T0)),)))
            zero, one = "2026-03-01T00:00:00.000Z", "2026-03-01T00:00:01.000Z"
            assert shown(tmp_path) == [(zero, zero, None, None, "running", "")]
            ended = Exit("1", T0, T0 + timedelta(seconds=1), 0, output_tail="done\n")
            await store.record(outcome(store, "job", runs=((JOB, ScriptRun.ended(ended)),)))
            assert shown(tmp_path) == [(zero, zero, one, 0, "succeeded", "done\n")]
            await store.record(
                outcome(store, "job", runs=((JOB, ScriptRun.ended(Exit("1", None, T0, 9), T0)), (JOB, ScriptRun("1", T0, T0))))
            )
            assert shown(tmp_path) == [(zero, zero, one, 0, "succeeded", "done\n")]

    asyncio.run(scenario())


def test_a_run_of_which_nobody_saw_the_end_does_not_go_on_for_ever(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with opened(tmp_path) as store:
            await store.apply(submission("job", **SCRIPT), BY)
            await store.record(outcome(store, "job", runs=((JOB, ScriptRun("1", None, T0)), (JOB, ScriptRun("x", T0, outcome="skipped")))))
            assert [row[4] for row in shown(tmp_path)] == ["running", "skipped"]
            await store.record(outcome(store, "job", runs=((JOB, ScriptRun("2", None, T0)),)))
            assert [row[4] for row in shown(tmp_path)] == ["unknown", "skipped", "running"]
            await store.remove("job", BY)
            await store.record(outcome(store, "job", gone=True))
            assert [row[4] for row in shown(tmp_path)] == ["unknown", "skipped", "unknown"]

    asyncio.run(scenario())


def test_outcomes_are_told_apart() -> None:
    def of(**more: Any) -> tuple[Any, str]:
        run = ScriptRun.ended(Exit("1", None, T0, **more))
        return run.outcome, run.reason

    assert of(code=0) == ("succeeded", "")
    assert of(code=3) == ("failed", "exited with code 3")
    assert of(signal="SIGKILL", oom_killed=True) == ("failed", "killed by SIGKILL (out of memory)")
    assert of(reason="cannot execute it") == ("failed", "cannot execute it")
    assert of(reason="exit status unknown", lost=True) == ("unknown", "exit status unknown")
    assert of(code=0, timed_out=True, unhealthy="timed out after 1 s") == ("timed-out", "timed out after 1 s")


def test_runs_are_bounded_by_rows_and_by_days(tmp_path: Path) -> None:
    async def scenario() -> None:
        clock = FakeClock()
        async with opened(tmp_path, clock, HistoryLimits(rows=10, days=30)) as store:
            await store.apply(submission("job", **SCRIPT), BY)
            missed = tuple((JOB, ScriptRun(f"missed {n}", T0 + timedelta(minutes=n), outcome="missed")) for n in range(100))
            await store.record(outcome(store, "job", runs=missed))
            await store.prune()
            assert sql(tmp_path, "SELECT count(*), min(scheduled_at) FROM v_runs") == [(10, "2026-03-01T01:30:00.000Z")]
            clock.wall += timedelta(days=31)
            await store.prune()
            assert shown(tmp_path) == []

    asyncio.run(scenario())


def test_a_run_that_goes_on_stays_however_many_others_there_are(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with opened(tmp_path, limits=HistoryLimits(rows=1)) as store:
            await store.apply(submission("job", **SCRIPT), BY)
            await store.record(outcome(store, "job", runs=((JOB, ScriptRun("1", T0, T0)),)))
            skipped = tuple((JOB, ScriptRun(f"x{n}", T0, outcome="skipped")) for n in range(20))
            await store.record(outcome(store, "job", runs=skipped))
            await store.prune()
            assert [row[4] for row in shown(tmp_path)] == ["running", "skipped"]
            await store.record(outcome(store, "job", runs=((JOB, ScriptRun("2", T0, T0)),)))
            await store.prune()
            assert [row[4] for row in shown(tmp_path)] == ["running"]

    asyncio.run(scenario())

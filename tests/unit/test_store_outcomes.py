"""What one pass records, and who is told."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import pytest
from msgspec.structs import replace

from boreas_agent.model import Attempts, Deadline, Event, Exit, Health, InstanceName, Probed, Status
from tests.unit.store_harness import BY, RUNNING, kinds, opened, outcome, sql, submission

KILLED = Exit("1", datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 3, 1, 1, tzinfo=UTC), signal="SIGKILL", oom_killed=True, seconds=3.5)


def test_a_health_row_is_written_for_a_change_and_not_for_a_pass(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with opened(tmp_path) as store:
            await store.apply(submission(), BY)
            await store.record(outcome(store, health=RUNNING))
            commits = store.commits
            for _ in range(5):
                await store.record(outcome(store, health=RUNNING))
            assert store.commits == commits
            await store.record(outcome(store, health=replace(RUNNING, msg="Running, a probe failed")))
            assert [row["msg"] for row in await store.health("web")] == ["Running, a probe failed", "Running", "revision 1 recorded"]

    asyncio.run(scenario())


def test_what_the_probes_found_is_there_again_after_a_restart(tmp_path: Path) -> None:
    probed = Probed("1.7", "by", started=True, ready=True, blemish="liveness probe failed: x", well_since=12.5)
    attempts = Attempts(0, "h", last_exit=replace(KILLED, unhealthy="why", well_seconds=3.0), probed=probed)

    async def scenario() -> None:
        async with opened(tmp_path) as store:
            await store.apply(submission(), BY)
            await store.record(outcome(store, attempts={0: attempts}))
        async with opened(tmp_path) as store:
            assert dict(store.heads["web"].attempts) == {0: attempts}

    asyncio.run(scenario())


def test_an_exit_recorded_twice_is_one_row(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with opened(tmp_path) as store:
            await store.apply(submission(), BY)
            name = InstanceName("web", 1, 0)
            await store.record(outcome(store, exits=((name, KILLED),)))
            await store.record(outcome(store, exits=((name, KILLED), (name, replace(KILLED, run="2")))))
            rows = await store.exits("web")
            assert [row["signal"] for row in rows] == ["SIGKILL", "SIGKILL"]
            assert sql(tmp_path, "SELECT app, revision, replica, started_at, exited_at, exit_code, signal, oom_killed FROM v_exits")[0] == (
                "web",
                1,
                0,
                "2026-03-01T00:00:00.000Z",
                "2026-03-01T01:00:00.000Z",
                None,
                "SIGKILL",
                1,
            )

    asyncio.run(scenario())


def test_what_a_pass_says_of_an_older_revision_is_dropped_but_what_happened_is_kept(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with opened(tmp_path) as store:
            await store.apply(submission(), BY)
            late = outcome(store, exits=((InstanceName("web", 1, 0), KILLED),), events=(Event("Started", "started", "web", 1),), proven="x")
            await store.apply(submission(version="v2"), BY)
            before = store.heads["web"]
            await store.record(late)
            assert store.heads["web"] == before
            assert len(await store.exits("web")) == 1
            assert "Started" in await kinds(store)

    asyncio.run(scenario())


def test_the_end_of_an_unknown_app_is_history_all_the_same(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with opened(tmp_path) as store:
            await store.apply(submission(), BY)
            late = outcome(store, exits=((InstanceName("web", 1, 0), KILLED),))
            await store.record(replace(late, app="stranger"))
            assert len(await store.exits("web")) == 1
            assert "stranger" not in store.heads

    asyncio.run(scenario())


def test_everything_remembered_is_the_same_after_opening_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with opened(tmp_path) as store:
            await store.apply(submission("web", replicas=2, environment={"KEY": "ÄÖ\n\t😀"}), BY)
            await store.apply(submission("other"), BY)
            await store.apply(submission("leaving"), BY)
            await store.remove("leaving", BY)
            await store.hold("other", "alice", "why", 9.5)
            soon = Deadline(1234.5, 4.25, "boot-1")
            exited = replace(KILLED, exited_at=datetime(2026, 3, 1, 1, 2, 3, 456789, tzinfo=UTC), output_tail="bye\x00\n")
            failed = Attempts(1, "hash", failures=3, restarts=9, not_before=soon, restarted=soon, last_exit=exited, recorded=("1", "2"))
            attempts = {1: failed}
            degraded = Health(60, Status.DEGRADED, "1 of 2")
            await store.record(outcome(store, health=degraded, attempts=attempts, proven="hash", unknown_since=soon))
            before = dict(store.heads)
        async with opened(tmp_path) as store:
            assert dict(store.heads) == before
            assert store.heads["web"].attempts[1].last_exit == exited

    asyncio.run(scenario())


def test_heads_cannot_be_changed_by_those_who_read_them(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with opened(tmp_path) as store:
            await store.apply(submission(), BY)
            mine = {0: Attempts(0, "hash")}
            await store.record(outcome(store, attempts=mine))
            mine.clear()
            assert list(store.heads["web"].attempts) == [0]
            with pytest.raises(TypeError):
                store.heads["web"].attempts[1] = Attempts(1, "hash")  # type: ignore[index]
            with pytest.raises(TypeError):
                store.heads["x"] = store.heads["web"]  # type: ignore[index]

    asyncio.run(scenario())


def test_whoever_waits_for_a_change_of_an_app_wakes_at_its_next_and_not_at_others(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with opened(tmp_path) as store:
            await store.apply(submission("web"), BY)
            web, other = store.changed("web"), store.changed("other")
            await store.apply(submission("other"), BY)
            assert other.done()
            assert not web.done()
            await store.record(outcome(store, "web"))
            await asyncio.wait_for(web, 5)
            assert store.heads["web"].health == RUNNING

    asyncio.run(scenario())


def test_waiting_in_vain_leaves_nothing_behind_and_ends_with_the_store(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with opened(tmp_path) as store:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(store.changed("web"), 0.01)
            forever = store.changed("web")
        with pytest.raises(asyncio.CancelledError):
            await forever

    asyncio.run(scenario())


def test_events_come_oldest_first_after_an_id_or_the_newest_where_none_is_given(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with opened(tmp_path) as store:
            await store.record_events([Event("Tick", f"number {n}", "web" if n % 2 else None) for n in range(10)])
            assert [event["id"] for event in await store.events(None, after=7)] == [8, 9, 10]
            assert [event["id"] for event in await store.events(None, limit=3)] == [8, 9, 10]
            assert [event["id"] for event in await store.events(None, after=0, limit=2)] == [1, 2]
            assert [event["message"] for event in await store.events("web", after=2, limit=2)] == ["number 3", "number 5"]

    asyncio.run(scenario())


def test_revisions_are_paged_newest_first(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with opened(tmp_path) as store:
            for n in range(5):
                await store.apply(submission(version=f"v{n}"), BY)
            assert [row["revision"] for row in await store.revisions("web", limit=2)] == [5, 4]
            assert [row["revision"] for row in await store.revisions("web", limit=2, before=4)] == [3, 2]
            assert (await store.revisions("web", limit=1))[0]["spec"] == {"type": "docker", "image": "registry.local/web:v4"}

    asyncio.run(scenario())

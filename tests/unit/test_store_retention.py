"""History is bounded; what the present needs is not history."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

from boreas_agent.model import Event, Exit, InstanceName
from boreas_agent.store.values import HistoryLimits
from tests.unit.store_harness import BY, opened, outcome, sql, submission
from tests.world import FakeClock


def test_each_table_keeps_its_newest_rows(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with opened(tmp_path, limits=HistoryLimits(rows=700)) as store:
            await store.apply(submission(), BY)
            await store.record_events([Event("Tick", str(n)) for n in range(3000)])
            exits = tuple((InstanceName("web", 1, 0), Exit(str(n), None, FakeClock().wall, code=0)) for n in range(1000))
            await store.record(outcome(store, exits=exits))
            assert await store.prune() == 2301 + 300
            assert sql(tmp_path, "SELECT count(*), min(message + 0), max(message + 0) FROM v_events") == [(700, 2300, 2999)]
            assert sql(tmp_path, "SELECT count(*) FROM v_exits") == [(700,)]
            assert await store.prune() == 0

    asyncio.run(scenario())


def test_what_is_older_than_the_limit_goes_and_event_ids_are_never_used_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        clock = FakeClock()
        async with opened(tmp_path, clock, HistoryLimits(days=30)) as store:
            await store.record_events([Event("Old", "old")])
            clock.wall += timedelta(days=31)
            assert await store.prune() == 1
            await store.record_events([Event("New", "new")])
            assert [event["id"] for event in await store.events()] == [2]

    asyncio.run(scenario())


def test_a_clock_that_was_wrong_for_a_while_costs_only_the_rows_of_that_while(tmp_path: Path) -> None:
    async def scenario() -> None:
        clock = FakeClock()
        async with opened(tmp_path, clock) as store:
            await store.record_events([Event("Right", "before")])
            right, clock.wall = clock.wall, clock.wall.replace(year=1970)
            await store.record_events([Event("Wrong", "the battery of the clock is empty")])
            clock.wall = right
            await store.prune()
            assert [event["kind"] for event in await store.events()] == ["Right"]

    asyncio.run(scenario())


def test_the_current_health_and_the_newest_fifty_revisions_stay_however_old(tmp_path: Path) -> None:
    async def scenario() -> None:
        clock = FakeClock()
        async with opened(tmp_path, clock, HistoryLimits(rows=1, days=1)) as store:
            await store.apply(submission("quiet"), BY)
            for n in range(60):
                await store.apply(submission(version=f"v{n}"), BY)
            clock.wall += timedelta(days=100)
            await store.prune()
            assert [row["revision"] for row in await store.revisions("web")] == list(range(60, 10, -1))
            assert len(await store.revisions("quiet")) == 1
            assert len(await store.health("quiet")) == 1
            assert len(await store.health("web")) == 1
        async with opened(tmp_path, clock) as store:
            assert set(store.heads) == {"quiet", "web"}

    asyncio.run(scenario())


def test_of_an_app_long_gone_only_its_last_revision_number_stays(tmp_path: Path) -> None:
    async def scenario() -> None:
        clock = FakeClock()
        async with opened(tmp_path, clock) as store:
            await store.apply(submission(), BY)
            await store.remove("web", BY)
            await store.record(outcome(store, gone=True))
            clock.wall += timedelta(days=400)
            await store.prune()
            assert await store.revisions("web") == []
            assert await store.newest("web") == 2
            assert (await store.apply(submission(), BY)).revision == 3

    asyncio.run(scenario())

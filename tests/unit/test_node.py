"""The machine's facts: when a disk is low, and that nothing that hangs holds up the rest."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest
from msgspec.structs import replace

from boreas_agent.clock import SystemClock
from boreas_agent.errors import Unavailable
from boreas_agent.node import About, Condition, NodeWatch, Sample, disk_pressure
from boreas_agent.notices import Notices
from boreas_agent.settings import Node
from tests.unit.store_harness import kinds, opened
from tests.waiting import eventually_async

THEN, NOW = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC)
SAMPLE = Sample(NOW, 1000, 500, 100, 50, (0.0, 0.0, 0.0), 10, 5)
OK, LOW = Condition("DiskPressure", False, "", THEN), Condition("DiskPressure", True, "", THEN)


@pytest.mark.parametrize(
    ("before", "free", "inodes", "status"),
    [
        (None, 101, 50, False),
        (None, 99, 50, True),
        (OK, 100, 50, False),
        (OK, 99, 50, True),
        (LOW, 101, 50, True),
        (LOW, 119, 50, True),
        (LOW, 120, 50, False),
        (OK, 500, 4, True),
        (OK, 500, 5, False),
        (LOW, 500, 5, True),
        (LOW, 500, 6, False),
    ],
)
def test_a_disk_is_low_below_the_threshold_and_well_again_with_a_fifth_more(before, free, inodes, status):
    found = disk_pressure(before, replace(SAMPLE, disk_free=free, inodes_free=inodes), 100)
    assert found.status is status
    assert found.since == (THEN if before is not None and before.status is status else NOW)


def test_a_disk_without_a_count_of_inodes_and_one_smaller_than_the_threshold_are_judged_all_the_same():
    assert disk_pressure(None, replace(SAMPLE, inodes_total=0, inodes_free=0), 100).status is False
    assert disk_pressure(LOW, replace(SAMPLE, disk_free=1000), 10_000).status is False
    assert disk_pressure(None, replace(SAMPLE, disk_free=0), 0).status is False
    assert disk_pressure(None, replace(SAMPLE, inodes_free=0), 0).status is False
    assert disk_pressure(None, replace(SAMPLE, disk_total=0, disk_free=0), 0).status is False


def test_the_message_says_how_much_there_is_and_how_much_there_should_be():
    found = disk_pressure(None, replace(SAMPLE, disk_total=50 * 10**9, disk_free=4 * 10**9), 5 * 10**9)
    assert found.message == "4.0 GB free (8.0% of 50.0 GB), low below 5.0 GB"


class StandIn:
    """An engine that answers when ``version_now`` says so; None: it hangs."""

    def __init__(self) -> None:
        self.enabled = True
        self.listening = True
        self.answer: str | Exception | None = "27.1"
        self._changes: asyncio.Queue[None] = asyncio.Queue()

    def becomes(self, answer: str | Exception | None) -> None:
        self.answer = answer
        self._changes.put_nowait(None)

    async def changed(self) -> None:
        await self._changes.get()

    async def version(self) -> str:
        if self.answer is None:
            await asyncio.Event().wait()
        if isinstance(self.answer, Exception):
            raise self.answer
        return str(self.answer)


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


def test_an_engine_that_goes_comes_and_is_upgraded_is_followed_and_each_change_said_once(tmp_path, monkeypatch):
    monkeypatch.setattr("boreas_agent.node.PAUSE_SECONDS", 0.0)

    async def test() -> None:
        engine, clock = StandIn(), SystemClock()
        async with opened(tmp_path, clock) as store:
            notices = Notices(store.record_events, clock)
            watch = NodeWatch(About("n", "i", "h", "1", NOW), tmp_path, Node(), engine, clock=clock, notices=notices)
            running = asyncio.create_task(watch.run())

            async def shows(reachable: bool, version: str, message: str) -> None:
                async def it_does() -> bool:
                    docker = watch.facts.docker
                    return (docker.reachable, docker.version) == (reachable, version) and message in docker.message

                await eventually_async(it_does)

            await shows(True, "27.1", "")
            engine.becomes(Unavailable("connection refused"))
            await shows(False, "27.1", "connection refused")
            since = watch.facts.docker.since
            engine.becomes(KeyError("Version"))
            await shows(False, "27.1", "cannot understand what answers")
            assert watch.facts.docker.since == since
            engine.becomes("28.0")
            await shows(True, "28.0", "")

            async def said() -> bool:
                return await kinds(store, None) == ["DockerReachable", "DockerUnreachable", "DockerReachable"]

            await eventually_async(said)
            await _end(running)

    asyncio.run(test())


def test_an_engine_that_hangs_delays_no_other_fact_and_a_work_dir_that_is_gone_leaves_the_last_ones(tmp_path):
    async def test() -> None:
        engine, clock = StandIn(), SystemClock()
        engine.answer = None
        folder = tmp_path / "work"
        folder.mkdir()
        async with opened(tmp_path, clock) as store:
            notices = Notices(store.record_events, clock)
            watch = NodeWatch(About("n", "i", "h", "1", NOW), folder, Node(), engine, clock=clock, notices=notices)
            running = asyncio.create_task(watch.run())

            async def sampled() -> Sample | None:
                return watch.facts.sample

            before = await eventually_async(sampled)
            assert watch.facts.docker.reachable is None
            folder.rmdir()
            await watch.look()
            assert watch.facts.sample == before
            folder.mkdir()
            await watch.look()
            assert watch.facts.sample != before
            await _end(running)

    asyncio.run(test())


def test_nothing_is_asked_of_an_engine_that_is_switched_off(tmp_path: Path):
    async def test() -> None:
        engine, clock = StandIn(), SystemClock()
        engine.enabled = False
        engine.answer = AssertionError("asked")
        async with opened(tmp_path, clock) as store:
            notices = Notices(store.record_events, clock)
            watch = NodeWatch(About("n", "i", "h", "1", NOW), tmp_path, Node(), engine, clock=clock, notices=notices)
            running = asyncio.create_task(watch.run())

            async def sampled() -> Sample | None:
                return watch.facts.sample

            await eventually_async(sampled)
            assert (watch.facts.docker.enabled, watch.facts.docker.reachable) == (False, None)
            await _end(running)

    asyncio.run(test())

"""Holds: people at work on an app."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.unit.store_harness import BY, kinds, opened, submission
from tests.world import FakeClock


def test_a_hold_says_who_why_and_until_when_and_makes_no_revision(tmp_path: Path) -> None:
    async def scenario() -> None:
        clock = FakeClock()
        async with opened(tmp_path, clock) as store:
            await store.apply(submission(), BY)
            receipt = await store.hold("web", "alice", "moving disks", 600)
            assert (receipt.changed, receipt.revision) == (True, 1)
            hold = store.heads["web"].hold
            assert hold is not None
            assert (hold.by, hold.reason, hold.seconds, hold.expires, hold.boot_id) == ("alice", "moving disks", 600, 1600.0, "boot-1")
            (held,) = [event for event in await store.events("web") if event["kind"] == "Held"]
            assert "alice" in held["message"]
            assert "moving disks" in held["message"]
            assert "2026-03-01T00:10:00.000Z" in held["message"]

    asyncio.run(scenario())


def test_an_apply_while_held_is_recorded_says_so_and_stays_held(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with opened(tmp_path) as store:
            await store.apply(submission(), BY)
            await store.hold("web", "alice", "", None)
            receipt = await store.apply(submission(version="v2"), BY)
            assert (receipt.changed, receipt.revision) == (True, 2)
            assert "held by alice" in receipt.message
            assert store.heads["web"].hold is not None

    asyncio.run(scenario())


def test_releasing_twice_changes_nothing_the_second_time(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with opened(tmp_path) as store:
            await store.apply(submission(), BY)
            await store.hold("web", "alice", "", None)
            assert not (await store.hold("web", "alice", "", None)).changed
            assert (await store.release("web", "bob")).changed
            assert not (await store.release("web", "bob")).changed
            assert store.heads["web"].hold is None
            assert await kinds(store) == ["Applied", "Held", "Released"]

    asyncio.run(scenario())


def test_a_hold_ends_by_itself_by_the_boot_clock_whatever_the_wall_clock_does(tmp_path: Path) -> None:
    async def scenario() -> None:
        clock = FakeClock()
        async with opened(tmp_path, clock) as store:
            await store.apply(submission("web"), BY)
            await store.apply(submission("other"), BY)
            await store.hold("web", "alice", "", 60)
            await store.hold("other", "alice", "", None)
            clock.wall = clock.wall.replace(year=2030)
            clock.uptime += 59
            assert await store.expire_holds() == []
            clock.uptime += 1
            assert await store.expire_holds() == ["web"]
            assert await store.expire_holds() == []
            assert store.heads["other"].hold is not None
            assert (await kinds(store))[-1] == "Released"

    asyncio.run(scenario())


def test_after_a_reboot_a_hold_lasts_its_seconds_from_the_start_of_the_agent_and_starts_over_only_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        clock = FakeClock()
        async with opened(tmp_path, clock) as store:
            await store.apply(submission(), BY)
            await store.hold("web", "alice", "", 60)
        clock.boot, clock.uptime = 2, 10.0
        async with opened(tmp_path, clock) as store:
            clock.uptime = 40.0
            assert await store.expire_holds() == []
        async with opened(tmp_path, clock) as store:
            clock.uptime = 69.0
            assert await store.expire_holds() == []
            clock.uptime = 70.0
            assert await store.expire_holds() == ["web"]

    asyncio.run(scenario())

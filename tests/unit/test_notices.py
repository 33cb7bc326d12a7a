"""The node's own events: what is news, and how much of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from boreas_agent.errors import CannotRecord
from boreas_agent.model import Event
from boreas_agent.notices import BURST, REFILL_SECONDS, Notices
from tests.unit.store_harness import kinds, opened
from tests.world import FakeClock

UP, DOWN = Event("Up", "it is there"), Event("Down", "it is away")


def said(test: Callable[[Notices, FakeClock], Awaitable[None]], path: Path) -> list[str]:
    """The kinds of the events that ``test`` left in a real store."""

    async def whole() -> list[str]:
        clock = FakeClock()
        async with opened(path, clock) as store:
            await test(Notices(store.record_events, clock), clock)
            return await kinds(store, None) if await store.events(None) else []

    return asyncio.run(whole())


def test_only_a_change_is_recorded(tmp_path):
    async def test(notices: Notices, _: FakeClock) -> None:
        for state, event in (("up", UP), ("up", UP), ("down", DOWN), ("down", DOWN), ("up", UP)):
            await notices.say("engine", state, event)

    assert said(test, tmp_path) == ["Up", "Down", "Up"]


def test_what_is_as_it_should_be_is_no_news_at_first(tmp_path):
    async def test(notices: Notices, _: FakeClock) -> None:
        await notices.say("disk", "ok", UP, at_first=False)
        await notices.say("disk", "low", DOWN, at_first=True)
        await notices.say("disk", "ok", UP, at_first=False)

    assert said(test, tmp_path) == ["Down", "Up"]


def test_what_goes_back_and_forth_without_end_has_a_budget_and_ends_with_the_truth(tmp_path):
    async def test(notices: Notices, clock: FakeClock) -> None:
        for _ in range(100):
            await notices.say("engine", "down", DOWN)
            await notices.say("engine", "up", UP)
        await notices.say("other", "down", DOWN)
        await notices.say("engine", "down", DOWN)
        clock.uptime += REFILL_SECONDS
        await notices.say("engine", "down", DOWN)

    assert said(test, tmp_path) == ["Down", "Up"] * (BURST // 2) + ["Down", "Down"]


def test_what_could_not_be_recorded_is_tried_again(tmp_path):
    recorded: list[str] = []
    full = True

    async def record(events: Sequence[Event]) -> None:
        if full:
            raise CannotRecord("the disk is full")
        recorded.extend(event.kind for event in events)

    async def test() -> None:
        nonlocal full
        notices = Notices(record, FakeClock())
        await notices.say("disk", "low", DOWN)
        assert recorded == []
        full = False
        await notices.say("disk", "low", DOWN)
        await notices.say("disk", "low", DOWN)
        assert recorded == ["Down"]

    asyncio.run(test())

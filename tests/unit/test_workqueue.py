"""Dirty, processing, delayed."""

from __future__ import annotations

import asyncio

from boreas_agent.workqueue import WorkQueue


def test_a_name_added_twice_comes_once() -> None:
    async def scenario() -> None:
        queue = WorkQueue()
        queue.add("a")
        queue.add("a")
        queue.add("b")
        assert [await queue.get(), await queue.get()] == ["a", "b"]
        queue.done("a")
        assert queue.idle("a")
        assert not queue.idle("b")

    asyncio.run(scenario())


def test_a_name_added_while_it_is_worked_on_comes_again_afterwards() -> None:
    async def scenario() -> None:
        queue = WorkQueue()
        queue.add("a")
        await queue.get()
        queue.add("a")
        queue.add("b")
        assert await queue.get() == "b"
        queue.done("a")
        assert await queue.get() == "a"

    asyncio.run(scenario())


def test_of_several_delays_the_earliest_counts_and_an_add_cancels_them() -> None:
    async def scenario() -> None:
        queue = WorkQueue()
        queue.add_after("late", 3600)
        queue.add_after("late", 0.01)
        async with asyncio.timeout(5):
            assert await queue.get() == "late"
        queue.add_after("b", 3600)
        queue.add("b")
        assert await queue.get() == "b"
        queue.close()

    asyncio.run(scenario())

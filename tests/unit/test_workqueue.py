"""Dirty, processing, delayed."""

from __future__ import annotations

import asyncio

from boreas_agent.workqueue import WorkQueue


def opened() -> tuple[WorkQueue, list[str]]:
    """A queue, and whose turn it has been."""
    queue, turns = WorkQueue(), list[str]()
    queue.open(turns.append)
    return queue, turns


def test_a_name_added_twice_comes_once() -> None:
    queue, turns = WorkQueue(), list[str]()
    queue.add("a")
    queue.add("a")
    queue.add("b")
    assert queue.waiting == 2
    assert not turns
    queue.open(turns.append)
    assert sorted(turns) == ["a", "b"]
    assert (queue.waiting, queue.processing) == (0, 2)
    queue.done("a")
    assert queue.idle("a")
    assert not queue.idle("b")


def test_a_name_added_while_it_is_worked_on_comes_again_afterwards() -> None:
    queue, turns = opened()
    for name in ("a", "a", "b", "a"):
        queue.add(name)
    assert turns == ["a", "b"]
    assert not queue.idle("a")
    queue.done("a")
    assert turns == ["a", "b", "a"]
    queue.done("a")
    assert queue.idle("a")


def test_of_several_delays_the_earliest_counts_and_an_add_cancels_them() -> None:
    async def scenario() -> None:
        queue, turns = WorkQueue(), asyncio.Queue[str]()
        queue.open(turns.put_nowait)
        queue.add_after("late", 3600)
        queue.add_after("late", 0.01)
        async with asyncio.timeout(5):
            assert await turns.get() == "late"
        queue.add_after("b", 3600)
        queue.add("b")
        assert turns.get_nowait() == "b"
        assert queue.delayed == 0
        queue.close()

    asyncio.run(scenario())


def test_a_closed_queue_begins_nothing() -> None:
    async def scenario() -> None:
        queue, turns = opened()
        queue.add("a")
        queue.add("a")
        queue.add_after("b", 3600)
        queue.close()
        queue.done("a")
        queue.add("c")
        assert turns == ["a"]
        assert queue.delayed == 0

    asyncio.run(scenario())

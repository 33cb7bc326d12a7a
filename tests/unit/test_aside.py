"""Calls that may never come back."""

from __future__ import annotations

import asyncio
import threading

import pytest

from boreas_agent.aside import Aside
from tests.waiting import eventually_async


def test_a_call_gives_its_result_or_what_it_raised():
    async def test() -> None:
        aside = Aside("test")
        assert await aside.run(lambda: 3, 10) == 3
        with pytest.raises(ZeroDivisionError):
            await aside.run(lambda: 1 // 0, 10)
        assert await aside.run(threading.current_thread, 10) is not threading.main_thread()

    asyncio.run(test())


def test_a_call_that_hangs_is_given_up_and_no_second_thread_hangs_beside_it():
    gate = threading.Event()

    async def test() -> None:
        aside = Aside("test-hanging")
        with pytest.raises(TimeoutError):
            await aside.run(gate.wait, 0.05)
        for _ in range(10):
            with pytest.raises(TimeoutError, match="an earlier call of test-hanging still hangs"):
                await aside.run(gate.wait, 10)
        assert sum(thread.name == "test-hanging" for thread in threading.enumerate()) == 1
        gate.set()

        async def works_again() -> bool:
            try:
                return await aside.run(lambda: True, 10)
            except TimeoutError:
                return False

        await eventually_async(works_again)

    asyncio.run(test())


def test_a_call_that_outlives_the_loop_disturbs_nobody():
    gate = threading.Event()

    async def test() -> None:
        with pytest.raises(TimeoutError):
            await Aside("test-outliving").run(gate.wait, 0.01)

    asyncio.run(test())
    (thread,) = [one for one in threading.enumerate() if one.name == "test-outliving"]
    assert thread.daemon
    gate.set()
    thread.join(10)
    assert not thread.is_alive()

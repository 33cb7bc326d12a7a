"""The one place in the tests that sleeps: until a condition holds, or its deadline has passed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

_STEP = 0.01


def eventually(check: Callable[[], T], seconds: float = 10.0) -> T:
    """The first true result of ``check()``; AssertionError where there is none within ``seconds``."""
    deadline = time.monotonic() + seconds
    while not (result := check()):
        assert time.monotonic() < deadline, f"did not happen within {seconds:g} s: {check}"
        time.sleep(_STEP)
    return result


async def eventually_async(check: Callable[[], Awaitable[T]], seconds: float = 10.0) -> T:
    """The first true result of ``await check()``; AssertionError where there is none within ``seconds``."""
    deadline = time.monotonic() + seconds
    while not (result := await check()):
        assert time.monotonic() < deadline, f"did not happen within {seconds:g} s: {check}"
        await asyncio.sleep(_STEP)
    return result

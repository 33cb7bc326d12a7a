"""``?wait=``: holding an answer back until the revision it speaks of has converged or failed.

Level-triggered: a published change wakes it, and it looks again every so often anyway, so a missed wake-up, a
client that left, or an agent that is stopping costs at most ``LOOK_AGAIN_SECONDS``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from boreas_agent import rollout
from boreas_agent.api.render import HEALTHY
from boreas_agent.model import Head, Status

if TYPE_CHECKING:
    from boreas_agent.store.store import Store

LOOK_AGAIN_SECONDS = 1.0


def settled(head: Head | None, revision: int) -> bool:
    """Nothing more is going to happen to ``revision`` by itself: it converged, failed, was superseded or removed."""
    if head is None or head.revision.revision != revision:
        return True
    deployment = head.deployment
    ended = deployment is None or deployment.outcome is not None
    match head.health.status:
        case Status.FAILED:
            return ended or rollout.target(head) is None  # else the revision before it is coming back
        case Status.DEGRADED if head.fallback is not None:
            return ended
        case Status.COMPLETED | Status.STOPPED:
            return True
        case Status.RUNNING:
            return head.health.level >= HEALTHY
        case _:
            return False


async def until_settled(store: Store, app: str, revision: int, seconds: float, given_up: Callable[[], bool]) -> None:
    """Returns once ``revision`` of ``app`` is settled, after ``seconds``, or when ``given_up`` says that nobody waits any more."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while not settled(store.head(app), revision) and not given_up():
        remaining = deadline - loop.time()
        if remaining <= 0:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(min(remaining, LOOK_AGAIN_SECONDS)):
                await store.changed(app)

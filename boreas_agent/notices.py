"""Events of the node itself: said when something changes, not each time it is looked at.

Level-triggered: whoever watches says again and again how it is; only what differs from what was last recorded is
recorded, and what could not be recorded (the disk is full) is tried again the next time. Something that goes back
and forth without end must not fill the history and push out everything else, so every topic has a budget.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from boreas_agent.clock import Clock
from boreas_agent.errors import CannotRecord
from boreas_agent.model import Event

log = logging.getLogger(__name__)

BURST = 10
"""Events that a topic may have in quick succession …"""
REFILL_SECONDS = 300.0
"""… and after so long one more."""
RECORD_SECONDS = 5.0
"""How long a disk that does not answer may hold up whoever has something to say."""

Record = Callable[[Sequence[Event]], Awaitable[None]]


@dataclass(slots=True)
class _Topic:
    said: str
    left: float
    at: float


class Notices:
    """What was last said of each topic. ``record`` commits events, and raises CannotRecord."""

    def __init__(self, record: Record, clock: Clock) -> None:
        self._record = record
        self._clock = clock
        self._topics: dict[str, _Topic] = {}

    async def say(self, topic: str, state: str, event: Event, *, at_first: bool = True) -> None:
        """``topic`` is in ``state`` now; ``event`` is recorded where that is news.

        ``at_first`` False: a state that is as it should be is no news when nothing was said before.
        """
        known = self._topics.setdefault(topic, _Topic(state if not at_first else "", BURST, self._clock.boottime()))
        now = self._clock.boottime()
        known.left = min(BURST, known.left + (now - known.at) / REFILL_SECONDS)
        known.at = now
        if state == known.said or known.left < 1:
            return
        try:
            async with asyncio.timeout(RECORD_SECONDS):
                await self._record([event])
        except (CannotRecord, TimeoutError) as error:
            log.debug("cannot record an event of the node, trying again", extra={"kind": event.kind, "error": str(error)})
            return
        known.said = state
        known.left -= 1

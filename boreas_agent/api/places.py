"""How many connections there may be at once, and who goes when there is no place left.

A place is taken from the moment the connection is accepted, so half a TLS handshake has one too. A newcomer takes the
place of the connection that has been idle longest: one that says nothing cannot keep others out.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Protocol

_log = logging.getLogger(__name__)

MAX_CONNECTIONS = 512
"""Half of the usual limit of 1024 open files: the agent itself must still reach its database, the engine and its apps."""
ROUND_SECONDS = 1.0
WARN_SECONDS = 60.0
"""Between two warnings: a flood must not fill the log."""


class Guest(Protocol):
    """A connection that holds a place."""

    def idle_since(self) -> float | None:
        """On the loop's clock; None while the agent is at work for it."""
        ...

    def look_after(self, now: float, /) -> None:
        """Called once a second: leave if something is overdue."""
        ...

    def evict(self) -> None:
        """Leave at once."""
        ...


class Places:
    """The connections of one listener. Belongs to the event loop."""

    def __init__(self) -> None:
        self._guests: dict[Guest, None] = {}
        self._round: asyncio.TimerHandle | None = None
        self._turned_away = 0
        self._warned = -WARN_SECONDS

    def enter(self, guest: Guest) -> bool:
        """Takes a place; False where all are taken by connections that the agent is at work for."""
        loop = asyncio.get_running_loop()
        if len(self._guests) >= MAX_CONNECTIONS:
            self._warn(loop.time())
            if not self._make_room():
                return False
        self._guests[guest] = None
        if self._round is None:
            self._round = loop.call_later(ROUND_SECONDS, self._look_after_all)
        return True

    def leave(self, guest: Guest) -> None:
        """Gives the place back; may be called again."""
        self._guests.pop(guest, None)

    def close(self) -> None:
        """Everybody leaves."""
        if self._round is not None:
            self._round.cancel()
        for guest in tuple(self._guests):
            guest.evict()

    def _make_room(self) -> bool:
        idle = [(since, guest) for guest in self._guests if (since := guest.idle_since()) is not None]
        if not idle:
            return False
        _, longest = min(idle, key=lambda one: one[0])
        self.leave(longest)
        longest.evict()
        return True

    def _look_after_all(self) -> None:
        loop = asyncio.get_running_loop()
        for guest in tuple(self._guests):
            guest.look_after(loop.time())
        self._round = loop.call_later(ROUND_SECONDS, self._look_after_all) if self._guests else None

    def _warn(self, now: float) -> None:
        self._turned_away += 1
        if now - self._warned >= WARN_SECONDS:
            _log.warning("too many connections: closed those idle longest", extra={"limit": MAX_CONNECTIONS, "closed": self._turned_away})
            self._warned, self._turned_away = now, 0

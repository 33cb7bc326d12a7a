"""Pure: when to look at an app that somebody keeps changing.

The first request is looked at now. Those that follow quickly wait for each other, so that of a series some passes are made and
not one for each; the longer it goes on, the rarer they are.
"""

from __future__ import annotations

from msgspec import Struct
from msgspec.structs import replace

FIRST_SECONDS = 0.25
"""Requests that follow the first one more quickly than this are looked at together."""
MOST_SECONDS = 1.0
"""However long a series goes on, it is looked at once in so long: as often as the planner would replace a young instance."""


class Series(Struct, frozen=True):
    """Requests for one app, in boot seconds."""

    began: float
    due: float
    """When what came since the last look is looked at; the earliest moment for another look."""
    gap: float = FIRST_SECONDS
    waited_for: bool = False
    """There is something to look at then."""

    def looks_now(self, now: float) -> bool:
        """The request at ``now`` is the first."""
        return self.began == now and not self.waited_for

    def matters(self, now: float) -> bool:
        """A request at ``now`` is one more of the series, not the first of another."""
        return now < self.due + (self.gap if self.waited_for else 0.0)


def after_request(series: Series | None, now: float) -> Series:
    """The series with one more request."""
    if series is None or not series.matters(now):
        return Series(now, now + FIRST_SECONDS)
    if now >= series.due:
        gap = min(2 * series.gap, MOST_SECONDS)
        return replace(series, due=series.due + gap, gap=gap)
    return series if series.waited_for else replace(series, waited_for=True)

"""The only place that asks for the time.

Durations and deadlines use the boot-time clock (it counts suspend, and no operator, NTP step or
DST change moves it); records that people read use the wall clock. A boot-clock reading means
nothing after a reboot, so whatever is stored carries the boot id beside it.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Protocol


class Clock(Protocol):
    """What the rest of the agent may know about time."""

    @property
    def boot_id(self) -> str:
        """Identifies this boot of the machine (``/proc/sys/kernel/random/boot_id``)."""

    def boottime(self) -> float:
        """Seconds since boot, monotonic, including suspend (CLOCK_BOOTTIME)."""

    def now(self) -> datetime:
        """Wall-clock time in UTC; for records only, never for decisions."""


class SystemClock:
    """The machine's own clocks."""

    def __init__(self) -> None:
        self._boot_id = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()

    @property
    def boot_id(self) -> str:
        return self._boot_id

    def boottime(self) -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def now(self) -> datetime:
        return datetime.now(UTC)


@lru_cache(maxsize=1024)  # one commit writes the same moment in many rows; one status answer repeats the last one's
def timestamp(at: datetime) -> str:
    """RFC 3339 in UTC with milliseconds and ``Z``: the one form of time in the API and the database."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


def parse_timestamp(text: str) -> datetime:
    """The inverse of :func:`timestamp`; raises ValueError on anything that is not RFC 3339."""
    return datetime.fromisoformat(text.replace("Z", "+00:00"))

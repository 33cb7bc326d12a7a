"""When a script runs, as users say it: a cron expression, read in a time zone as Debian's cron would read it.

Where clocks go forward, a fixed time that does not exist that day comes right after the gap; where they go back, one that exists
twice comes once. Times given by wildcards follow the passing of time.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, tzinfo
from functools import lru_cache
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError
from pydantic import AfterValidator, Field, model_validator

from boreas_agent.spec.fields import Model, Plain, Seconds

_NAMED = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_LONGEST_CRON = 256
_FORMS = "five fields (minute hour day month weekday), six with seconds first, or one of @hourly @daily @weekly @monthly @yearly"
_SOME_DAY = datetime(2024, 1, 1, tzinfo=UTC)


def _cron(text: str) -> str:
    """The expression, checked, with single spaces."""
    text = " ".join(text.split())
    if len(text) > _LONGEST_CRON:
        raise ValueError(f"must not be longer than {_LONGEST_CRON} characters")
    try:
        next(CronSim(_NAMED.get(text, text), _SOME_DAY))
    except CronSimError as error:
        raise ValueError(f"{text!r} is no cron expression ({str(error).lower()}); give {_FORMS}") from None
    except StopIteration:
        raise ValueError(f"{text!r} names a time that never comes") from None
    return text


@lru_cache(maxsize=1024)
def _zone(name: str) -> tzinfo:
    """UTC is the one that the library knows to have no changes of its clocks."""
    return UTC if name == "UTC" else ZoneInfo(name)


def _zone_name(name: str) -> str:
    try:
        _zone(name)
    except (ValueError, OSError, KeyError):
        raise ValueError(f"there is no time zone {name[:100]!r}; give the IANA name of one, such as 'Europe/Berlin'") from None
    return name


class Schedule(Model):
    """Run at the times of ``cron`` in ``time_zone``, one run at a time.

    A time that comes while a run has not ended is skipped (``overlap: skip``), or waits for its end (``queue``: one of them at most). Of
    times that were missed, because the agent or the machine was down or people held it, the last one is made up for, unless
    that is later than ``starting_deadline_seconds`` after it. A text alone is the ``cron``.
    """

    cron: Annotated[Plain, AfterValidator(_cron)]
    time_zone: Annotated[Plain, AfterValidator(_zone_name)] = "UTC"
    overlap: Literal["skip", "queue"] = "skip"
    starting_deadline_seconds: Annotated[Seconds, Field(gt=0)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _text_alone(cls, value: Any) -> Any:
        return {"cron": _cron(value)} if isinstance(value, str) else value

    def times(self, after: datetime) -> Iterator[datetime]:
        """The times after ``after``, in UTC, each later than the one before."""
        last = after
        for at in CronSim(_NAMED.get(self.cron, self.cron), after.astimezone(_zone(self.time_zone))):
            found = at.astimezone(UTC)
            if found > last:  # around a change of the clocks the library may say one twice
                yield found
                last = found

    def first(self, after: datetime) -> datetime | None:
        """The first time after ``after``; None where there is none any more."""
        return _first(self, after)


@lru_cache(maxsize=4096)  # of every scheduled app it is asked in every pass
def _first(schedule: Schedule, after: datetime) -> datetime | None:
    return next(schedule.times(after), None)

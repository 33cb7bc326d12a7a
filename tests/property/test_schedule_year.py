"""A year of minutes, with changes of the clocks and an agent that is away now and then: a script runs exactly when it should."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from cronsim import CronSim
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from boreas_agent.model import Attempts
from boreas_agent.schedule import attend
from tests.unit.test_planner import ended, revision, tried

BEGIN, MINUTES = datetime(2026, 1, 1, tzinfo=UTC), 365 * 24 * 60
CRONS = ["30 2 * * *", "0,30 2 * * *", "*/17 * * * *", "15 */6 * * *", "45 1 * * 7", "0 0 1 * *", "7 3 29 2,3 *", "@hourly"]
ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/St_Johns"]
downtimes = st.lists(st.tuples(st.integers(0, MINUTES - 1), st.sampled_from([1, 2, 59, 60, 180, 1440, 10_000])), max_size=30)


def by_the_library(cron: str, zone: str) -> list[datetime]:
    """Its own iterator from the first minute on; what it says twice is one time."""
    times: list[datetime] = []
    for at in CronSim("0 * * * *" if cron == "@hourly" else cron, BEGIN.astimezone(UTC if zone == "UTC" else ZoneInfo(zone))):
        found = at.astimezone(UTC)
        if found > BEGIN + timedelta(minutes=MINUTES):
            return times
        if found not in times[-1:]:
            times.append(found)
    raise AssertionError("it ended before the year did")


def wanted(times: list[datetime], away: bytearray) -> Iterator[tuple[datetime, datetime]]:
    """What should run, and when: at its own time, or, of those that came while the agent was away, the last one as soon as it is back."""
    pending: datetime | None = None
    coming = iter([*times, datetime.max.replace(tzinfo=UTC)])
    following = next(coming)
    for minute in range(1, MINUTES + 1):
        now = BEGIN + timedelta(minutes=minute)
        if following <= now:
            pending, following = following, next(coming)
        if pending is not None and not away[minute]:
            yield pending, now
            pending = None


def by_minute(downtime: list[tuple[int, int]]) -> bytearray:
    """Of every minute of the year, whether the agent is away."""
    away = bytearray(MINUTES + 1)
    for begin, length in downtime:
        away[begin : begin + length] = b"\1" * (min(begin + length, MINUTES + 1) - begin)
    return away


@settings(max_examples=5, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(CRONS), st.sampled_from(ZONES), downtimes)
def test_a_year_of_a_schedule_is_that_of_the_library(cron: str, zone: str, downtime: list[tuple[int, int]]) -> None:
    away = by_minute(downtime)
    of = replace(revision(1, "v1", type="script", command=["true"], schedule={"cron": cron, "time_zone": zone}), submitted_at=BEGIN)
    ran: list[tuple[datetime, datetime]] = []
    unrun: list[datetime] = []
    known: Attempts = tried(of)
    for minute in range(1, MINUTES + 1):
        if away[minute]:
            continue
        now = BEGIN + timedelta(minutes=minute)
        after = attend(known, of, now)
        unrun += [run.scheduled_at for run in after.unrun if run.scheduled_at]
        if after.attempts != known:
            turn = after.attempts.turn
            assert turn is not None
            assert turn.at is not None
            ran.append((turn.at, now))
            known = replace(after.attempts, last_exit=ended(0), exits=1)
        else:
            known = after.attempts
    times = by_the_library(cron, zone)
    assert ran == list(wanted(times, away))
    assert len({at for at, _ in ran}) == len(ran), "a time was run for twice"
    told = {at for at, _ in ran} | set(unrun)
    assert len(told) == len(ran) + len(unrun), "a time was run for and not run for"
    assert told <= set(times)

"""What scripts have beyond their text: a check, a time they may take, retries, a schedule."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from boreas_agent.errors import Invalid
from boreas_agent.spec import Schedule, ScriptPkg, canonical, max_attempts, parse_pkg, spec_hash
from tests.unit.test_spec import SCRIPT, pkg_faults, submitted

T0 = datetime(2026, 3, 1, tzinfo=UTC)


def schedule(value: Any) -> Schedule:
    pkg = submitted(SCRIPT, schedule=value).pkg
    assert isinstance(pkg, ScriptPkg)
    assert pkg.schedule is not None
    return pkg.schedule


def times(value: Any, after: datetime, count: int = 3) -> list[str]:
    found = schedule(value).times(after)
    return [next(found).isoformat(timespec="seconds").removesuffix("+00:00") for _ in range(count)]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("*/5 * * * *", "2026-03-01T00:05:00"),
        ("  30   4 1 JAN mon ", "2027-01-01T04:30:00"),
        ("*/20 * * * * *", "2026-03-01T00:00:20"),
        ("@hourly", "2026-03-01T01:00:00"),
        ("@daily", "2026-03-02T00:00:00"),
        ("@weekly", "2026-03-08T00:00:00"),
        ("@monthly", "2026-04-01T00:00:00"),
        ("@yearly", "2027-01-01T00:00:00"),
        ("0 0 L * *", "2026-03-31T00:00:00"),
        ("0 0 29 2 *", "2028-02-29T00:00:00"),
        ({"cron": "0 12 * * *", "time_zone": "Asia/Kolkata"}, "2026-03-01T06:30:00"),
    ],
)
def test_a_schedule_is_a_cron_expression_in_utc_or_another_time_zone(value: Any, expected: str) -> None:
    assert times(value, T0, 1) == [expected]


@pytest.mark.parametrize(
    ("what", "cron", "after", "expected"),
    [
        ("a time that does not exist comes right after the gap", "30 2 * * *", (3, 28, 12), ["03-29T01:00:00", "03-30T00:30:00"]),
        ("two of them come once", "0,30 2 * * *", (3, 28, 12), ["03-29T01:00:00", "03-30T00:00:00"]),
        ("a time that exists twice comes once", "30 2 * * *", (10, 24, 12), ["10-25T00:30:00", "10-26T01:30:00"]),
        ("also for who asks between the two", "30 2 * * *", (10, 25, 0, 45), ["10-26T01:30:00", "10-27T01:30:00"]),
        ("wildcards follow the passing of time", "*/30 * * * *", (10, 25, 0, 10), ["10-25T00:30:00", "10-25T01:00:00"]),
        ("over the gap, too", "*/30 * * * *", (3, 29, 0, 30), ["03-29T01:00:00", "03-29T01:30:00"]),
    ],
)
def test_a_change_of_the_clocks_neither_drops_nor_doubles_a_time(what: str, cron: str, after: tuple[int, ...], expected: list[str]) -> None:
    month, day, hour, *minute = after
    found = times({"cron": cron, "time_zone": "Europe/Berlin"}, datetime(2026, month, day, hour, *minute, tzinfo=UTC), 2)
    assert found == [f"2026-{one}" for one in expected], what


def test_the_text_alone_and_the_object_are_the_same_request() -> None:
    text, whole = submitted(SCRIPT, schedule="*/5 * * * *"), submitted(SCRIPT, schedule={"cron": "*/5  * * * *", "overlap": "skip"})
    assert text.spec_hash == whole.spec_hash
    assert canonical(text.pkg)["schedule"] == {"cron": "*/5 * * * *"}


FORMS = "five fields (minute hour day month weekday), six with seconds first, or one of @hourly @daily @weekly @monthly @yearly"

ZONE = "give the IANA name of one, such as 'Europe/Berlin'"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("every day", {"pkg.schedule": f"'every day' is no cron expression (wrong number of fields); give {FORMS}"}),
        ("61 * * * *", {"pkg.schedule": f"'61 * * * *' is no cron expression (bad minute); give {FORMS}"}),
        ({"cron": "* * * * FOO"}, {"pkg.schedule.cron": f"'* * * * FOO' is no cron expression (bad day-of-week); give {FORMS}"}),
        ("0 0 30 2 *", {"pkg.schedule": f"'0 0 30 2 *' is no cron expression (bad day-of-month); give {FORMS}"}),
        ({"cron": "* " * 300}, {"pkg.schedule.cron": "must not be longer than 256 characters"}),
        ({"cron": "@hourly", "time_zone": "Mars/Utopia"}, {"pkg.schedule.time_zone": f"there is no time zone 'Mars/Utopia'; {ZONE}"}),
        (
            {"cron": "@hourly", "time_zone": "../../etc/passwd"},
            {"pkg.schedule.time_zone": f"there is no time zone '../../etc/passwd'; {ZONE}"},
        ),
        ({"cron": "@hourly", "overlap": "both"}, {"pkg.schedule.overlap": "must be 'skip' or 'queue'"}),
        ({"cron": "@hourly", "at": 1}, {"pkg.schedule.at": "unknown field"}),
        ({"time_zone": "UTC"}, {"pkg.schedule.cron": "is required"}),
        (5, {"pkg.schedule": "must be an object"}),
    ],
)
def test_a_bad_schedule_is_refused_with_the_way_out(value: Any, expected: dict[str, str]) -> None:
    found = pkg_faults(SCRIPT, schedule=value)
    assert found == expected or (value == 5 and list(found) == ["pkg.schedule"])


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"check_interval_seconds": 5}, "check_interval_seconds"),
        ({"check": "true", "check_interval_seconds": 0}, "check_interval_seconds"),
        ({"check": "true", "schedule": "@hourly"}, "schedule"),
        ({"check": ["true"]}, "check"),
        ({"check": ""}, "check"),
        ({"check": "a\0b"}, "check"),
        ({"timeout_seconds": 0}, "timeout_seconds"),
        ({"timeout_seconds": "5m"}, "timeout_seconds"),
        ({"retries": -1}, "retries"),
        ({"retries": 1.5}, "retries"),
        ({"retries": 1, "restart": {"max_attempts": 2}}, "retries"),
        ({"retries": 1, "restart": {"policy": "never"}}, "retries"),
    ],
)
def test_what_makes_no_sense_is_refused_by_its_field(more: dict[str, Any], field: str) -> None:
    assert list(pkg_faults(SCRIPT, **more)) == [f"pkg.{field}"]


@pytest.mark.parametrize(
    ("more", "attempts"),
    [
        ({}, 3),
        ({"retries": 0}, 1),
        ({"retries": 4}, 5),
        ({"restart": {"max_attempts": 7}}, 7),
        ({"retries": 0, "restart": {"policy": "never"}}, 1),
    ],
)
def test_retries_are_the_attempts_after_the_first(more: dict[str, Any], attempts: int) -> None:
    assert max_attempts(submitted(SCRIPT, **more).pkg) == attempts


def test_scripts_without_the_new_fields_keep_the_hash_that_is_on_record() -> None:
    assert submitted(SCRIPT).spec_hash == "d5b69b14ff29e1445dd26508b2535338"
    assert submitted(SCRIPT, check="true").spec_hash != submitted(SCRIPT).spec_hash


@given(st.text(alphabet="0123456789*/,-#LW @adehilmoruwyMON", max_size=24) | st.text(max_size=12))
def test_any_text_is_either_a_schedule_with_a_time_or_refused(text: str) -> None:
    try:
        pkg = parse_pkg({**SCRIPT, "schedule": text})
    except Invalid as error:
        assert all(fault.message for fault in error.fields)
        return
    assert isinstance(pkg, ScriptPkg)
    assert pkg.schedule is not None
    first = pkg.schedule.first(T0)
    assert first is None or first > T0
    assert spec_hash("v", parse_pkg(canonical(pkg))) == spec_hash("v", pkg)

"""Requests that follow each other quickly."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

from boreas_agent.gathering import FIRST_SECONDS, MOST_SECONDS, Series, after_request


def looks(requests: Iterable[float]) -> list[float]:
    """When the app is looked at for these requests; each is looked at, now or when its series is due."""
    series: Series | None = None
    found: set[float] = set()
    for now in requests:
        series = after_request(series, now)
        found.add(now if series.looks_now(now) else series.due)
    return sorted(found)


def test_a_single_request_is_looked_at_at_once() -> None:
    assert looks([100.0]) == [100.0]


def test_requests_that_do_not_follow_quickly_are_each_looked_at_at_once() -> None:
    assert looks([100.0, 100.3, 100.6, 110.0]) == [100.0, 100.3, 100.6, 110.0]


def test_what_follows_quickly_is_looked_at_once_and_together() -> None:
    assert looks([100.0, 100.01, 100.02, 100.2]) == [100.0, 100.0 + FIRST_SECONDS]


def test_a_long_series_is_looked_at_less_and_less_often_down_to_a_limit() -> None:
    found = looks(100 + n / 100 for n in range(1000))
    assert found[:4] == [100.0, 100.25, 100.75, 101.75]
    gaps = [later - earlier for earlier, later in pairwise(found)]
    assert set(gaps[3:]) == {MOST_SECONDS}
    assert len(found) <= 13


def test_the_last_request_of_a_series_is_looked_at_and_not_late() -> None:
    for length in range(1, 400):
        requests = [100 + n / 100 for n in range(length)]
        assert requests[-1] <= looks(requests)[-1] <= requests[-1] + MOST_SECONDS


def test_after_a_series_the_next_request_is_looked_at_at_once_again() -> None:
    assert looks([100.0, 100.1, 102.0]) == [100.0, 100.25, 102.0]

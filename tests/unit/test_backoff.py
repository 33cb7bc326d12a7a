"""Delays, and what an exit means for the next start."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from boreas_agent.backoff import Moment, after_exit, after_failure, delay_seconds, finished, given_up
from boreas_agent.model import Attempts, Exit
from boreas_agent.spec import Pkg, Restart, parse_pkg

NOW = Moment(100.0, "boot", 0.0)


def binary(**restart: object) -> Pkg:
    return parse_pkg({"type": "binary", "command": ["/bin/app"], "restart": restart})


def script(**restart: object) -> Pkg:
    return parse_pkg({"type": "script", "command": ["true"], "restart": restart})


def ended(code: int | None = 1, seconds: float | None = 0.1, *, lost: bool = False) -> Exit:
    return Exit("1", None, datetime(2026, 1, 1, tzinfo=UTC), code, seconds=seconds, lost=lost)


def fail(pkg: Pkg, *lasted: float | None) -> list[float]:
    """The waits after runs of these lengths, one after another."""
    attempts, waits = Attempts(0, "h"), []
    for number, seconds in enumerate(lasted):
        attempts = after_exit(attempts, str(number), ended(seconds=seconds), pkg, NOW)
        waits.append(attempts.not_before.delay if attempts.not_before else 0.0)
    return waits


def test_a_healthy_run_is_restarted_at_once_and_the_delays_grow_from_there() -> None:
    assert fail(binary(), 3600, 0.1, 0.1, 0.1) == [0, 1, 2, 4]


def test_a_new_app_that_exits_at_once_waits_from_the_first_restart_on() -> None:
    assert fail(binary(), 0.1, 0.1, 0.1) == [1, 2, 4]


def test_a_stable_run_ends_the_row_of_failures() -> None:
    assert fail(binary(), 0.1, 0.1, 0.1, 61, 0.1) == [1, 2, 4, 0, 1]


def test_delays_end_at_the_ceiling() -> None:
    assert fail(binary(max_delay_seconds=5), *[0.1] * 9)[-3:] == [5, 5, 5]


@given(st.integers(1, 100_000), st.floats(-1, 1))
def test_a_delay_is_finite_and_within_ten_percent_of_the_ceiling_whatever_the_count(failures: int, chance: float) -> None:
    assert 0.9 <= delay_seconds(Restart(), failures, chance) <= 66


def test_a_hopeless_start_waits_the_longest_delay_at_once() -> None:
    tried = after_failure(Attempts(0, "h"), "no such user", Restart(), NOW, hopeless=True)
    assert tried.not_before is not None
    assert tried.not_before.delay == 60


@pytest.mark.parametrize(
    ("pkg", "exit_", "exits", "is_finished", "is_given_up"),
    [
        (binary(), ended(0), 1, False, False),
        (binary(policy="on-failure"), ended(0), 1, True, False),
        (binary(policy="on-failure"), ended(1), 1, False, False),
        (binary(policy="never"), ended(0), 1, True, False),
        (binary(policy="never"), ended(1), 1, False, True),
        (binary(max_attempts=2), ended(1), 2, False, True),
        (binary(), ended(None, lost=True), 1, False, False),
        (script(), ended(0), 1, True, False),
        (script(), ended(1), 2, False, False),
        (script(), ended(1), 3, False, True),
        (script(), ended(None, lost=True), 1, False, True),
    ],
)
def test_when_a_replica_is_finished_or_given_up(pkg: Pkg, exit_: Exit, exits: int, is_finished: bool, is_given_up: bool) -> None:
    tried = Attempts(0, "h", failures=exits, exits=exits, last_exit=exit_)
    assert (finished(tried, pkg), given_up(tried, pkg)) == (is_finished, is_given_up)


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ({"initial_delay_seconds": 3}, [3, 6, 12, 24]),
        ({"initial_delay_seconds": 0}, [0, 0, 0, 0]),
        ({"factor": 3}, [1, 3, 9, 27]),
        ({"factor": 1}, [1, 1, 1, 1]),
        ({"max_delay_seconds": 3}, [1, 2, 3, 3]),
        ({"reset_after_seconds": 0.1}, [0, 0, 0, 0]),
        ({"reset_after_seconds": 0.2}, [1, 2, 4, 8]),
    ],
)
def test_each_setting_of_the_backoff_has_its_effect(setting: dict[str, float], expected: list[float]) -> None:
    assert fail(binary(**setting), 0.1, 0.1, 0.1, 0.1) == expected


@pytest.mark.parametrize(("chance", "expected"), [(-1.0, 3.6), (0.0, 4.0), (0.5, 4.2), (1.0, 4.4)])
def test_the_draw_moves_a_delay_by_ten_percent_at_most(chance: float, expected: float) -> None:
    assert delay_seconds(Restart(), 3, chance) == pytest.approx(expected)
    drawn = after_failure(Attempts(0, "h", failures=2), "x", Restart(), Moment(100.0, "boot", chance))
    assert drawn.not_before is not None
    assert drawn.not_before.at == pytest.approx(100 + expected)

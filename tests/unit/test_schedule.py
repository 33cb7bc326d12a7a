"""Which scheduled times are due, and what becomes of each."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from boreas_agent.backoff import Moment
from boreas_agent.health import assess
from boreas_agent.ledger import enter
from boreas_agent.model import Attempts, Hold, Phase, Revision, Turn
from boreas_agent.planner import plan
from boreas_agent.schedule import MOST_MISSED, Attended, attend, due, next_run
from boreas_agent.spec import Schedule
from tests.unit.test_planner import NOW, T0, ended, head, revision, seen, text, tried

MOMENT = Moment(NOW, "b", 0.0)


def every(cron: str = "*/10 * * * *", kind: Any = "apply", **more: Any) -> Revision:
    return revision(1, "v1", kind, type="script", command=["true"], schedule={"cron": cron, **more})


TENS = every()


def at(minute: float, second: float = 0) -> datetime:
    return T0 + timedelta(minutes=minute, seconds=second)


def turn(minute: float | None, **more: Any) -> Turn:
    """The turn of the time at that minute, everything until then decided on, unless ``more`` says otherwise."""
    return Turn(**{"upto": at(minute or 0), "wanted": True, "at": None if minute is None else at(minute), **more})


def known(of: Revision = TENS, **more: Any) -> Attempts:
    return tried(of, **more)


def told(attended: Attended) -> list[str]:
    return [f"{run.outcome} {(run.scheduled_at - T0).total_seconds() / 60:g}" for run in attended.unrun if run.scheduled_at]


def test_nothing_is_due_before_the_first_time_after_the_request() -> None:
    assert attend(known(), TENS, at(9, 59)) == Attended(known())
    assert next_run(known(), TENS) == next_run(None, TENS) == at(10)
    assert attend(known(), TENS, at(10)).attempts.turn == turn(10)


@pytest.mark.parametrize(
    ("what", "overlap", "before", "minute", "expected", "unrun"),
    [
        ("the last one has ended well", "skip", {"turn": turn(10), "last_exit": ended(0), "exits": 1}, 20, turn(20, succeeded=True), []),
        ("or badly", "skip", {"turn": turn(10), "last_exit": ended(7), "exits": 3}, 20, turn(20, failed="exited with code 7"), []),
        ("it is still tried", "skip", {"turn": turn(10), "last_exit": ended(7), "exits": 1}, 20, turn(10, upto=at(20)), ["skipped 20"]),
        ("it still runs", "skip", {"turn": turn(10), "started": True}, 20, turn(10, upto=at(20)), ["skipped 20"]),
        ("one may wait", "queue", {"turn": turn(10), "started": True}, 20, turn(10, upto=at(20), queued=at(20)), []),
        (
            "but not two",
            "queue",
            {"turn": turn(10, upto=at(20), queued=at(20)), "started": True},
            30,
            turn(10, upto=at(30), queued=at(20)),
            ["skipped 30"],
        ),
        (
            "it need not wait any more",
            "queue",
            {"turn": turn(10, upto=at(20), queued=at(20)), "last_exit": ended(0), "exits": 1},
            21,
            turn(20, succeeded=True),
            [],
        ),
        (
            "and another one waits in its place",
            "queue",
            {"turn": turn(10, upto=at(20), queued=at(20)), "last_exit": ended(0), "exits": 1},
            30,
            turn(20, upto=at(30), queued=at(30), succeeded=True),
            [],
        ),
        ("nothing was run for it", "skip", {"turn": turn(10)}, 20, turn(20), ["missed 10"]),
        (
            "nothing could be run for it",
            "skip",
            {"turn": turn(10), "last_failure": "cannot start", "failures": 9},
            20,
            turn(20, failed="cannot start"),
            ["missed 10"],
        ),
        (
            "three were missed",
            "skip",
            {"turn": turn(10), "last_exit": ended(0), "exits": 1},
            45,
            turn(40, succeeded=True),
            ["missed 20", "missed 30"],
        ),
        (
            "nobody knows how the last one ended",
            "skip",
            {"turn": turn(10), "last_exit": ended(None, lost=True, reason="exit status unknown"), "exits": 1},
            20,
            turn(20, failed="outcome unknown: exit status unknown"),
            [],
        ),
        (
            "it has failed long before",
            "skip",
            {"turn": turn(10, failed="exited with code 7"), "last_exit": ended(0), "exits": 1},
            20,
            turn(20, succeeded=True),
            [],
        ),
        ("the clock was set back", "skip", {"turn": turn(10), "last_exit": ended(0), "exits": 1}, -1000, turn(10), []),
    ],
)
def test_what_becomes_of_a_time(  # noqa: PLR0917  the columns of the table
    what: str, overlap: str, before: dict[str, Any], minute: float, expected: Turn, unrun: list[str]
) -> None:
    of = every(overlap=overlap)
    after = attend(tried(of, **before), of, at(minute))
    assert (after.attempts.turn, told(after)) == (expected, unrun), what


def test_a_new_turn_begins_with_nothing_tried() -> None:
    before = known(turn=turn(10), last_exit=ended(7), exits=3, failures=3, restarts=5, recorded=("1.3",))
    assert attend(before, TENS, at(20)).attempts == known(turn=turn(20, failed="exited with code 7"), restarts=5, recorded=("1.3",))


def test_what_comes_too_late_is_missed() -> None:
    of = every(starting_deadline_seconds=60)
    assert attend(tried(of), of, at(10, 60)).attempts.turn == turn(10)
    late = attend(tried(of), of, at(10, 61))
    assert (late.attempts.turn, told(late)) == (Turn(at(10)), ["missed 10"])
    waited = attend(tried(of, turn=turn(10, upto=at(20), queued=at(20)), last_exit=ended(0), exits=1), of, at(22))
    assert (waited.attempts.turn, told(waited)) == (turn(10, upto=at(20)), ["missed 20"])
    never_begun = attend(tried(of, turn=turn(10), failures=1, last_failure="cannot start"), of, at(12))
    assert (never_begun.attempts, told(never_begun)) == (tried(of, turn=Turn(at(10), failed="cannot start")), ["missed 10"])


def test_what_was_skipped_or_missed_is_said() -> None:
    skipped = attend(known(turn=turn(10), started=True), TENS, at(20)).events
    assert skipped == (("RunSkipped", "the run scheduled for 2026-01-01T00:20:00.000Z is skipped: the one before it has not ended"),)
    missed = attend(known(), TENS, at(35)).events
    assert missed == (("RunMissed", "2 scheduled runs were missed: 2026-01-01T00:10:00.000Z to 2026-01-01T00:20:00.000Z"),)
    assert attend(known(), TENS, at(25)).events == (("RunMissed", "a scheduled run was missed: 2026-01-01T00:10:00.000Z"),)


def test_years_of_missed_seconds_are_told_of_by_the_newest_hundred() -> None:
    of = every("* * * * * *")
    after = attend(tried(of), of, T0 + timedelta(days=1000))
    assert after.attempts.turn == Turn(T0 + timedelta(days=1000), wanted=True, at=T0 + timedelta(days=1000))
    assert len(after.unrun) == MOST_MISSED
    assert after.events[0][1].startswith("at least 100 scheduled runs were missed: ")


def test_times_far_apart_are_found_however_long_ago() -> None:
    leap = Schedule(cron="0 0 29 2 *")
    assert due(leap, datetime(2023, 1, 1, tzinfo=UTC), datetime(2033, 1, 1, tzinfo=UTC)) == [
        datetime(2024, 2, 29, tzinfo=UTC),
        datetime(2028, 2, 29, tzinfo=UTC),
        datetime(2032, 2, 29, tzinfo=UTC),
    ]


def test_a_restart_runs_it_at_once_and_then_as_scheduled() -> None:
    again = every(kind="restart")
    now = attend(tried(again), again, at(1))
    assert now.attempts.turn == Turn(T0, wanted=True)
    assert text(plan(head(again, now.attempts), [], NOW)) == ["prepare web.1.0", "start web.1.0 after run 0: revision 1 (v1) wants it"]
    done = replace(now.attempts, last_exit=ended(0), exits=1)
    assert attend(done, again, at(9)).attempts == done
    assert attend(done, again, at(10)).attempts.turn == turn(10, succeeded=True)


def test_a_run_of_which_nothing_is_on_record_is_neither_doubled_nor_made_up_for() -> None:
    begun = attend(known(started=True), TENS, at(35))
    assert (begun.attempts.turn, told(begun)) == (Turn(at(35), wanted=True), [])


def test_of_an_app_that_is_held_or_on_a_drained_node_nothing_becomes_due() -> None:
    held = replace(head(TENS), hold=Hold("me", "", None))
    assert enter(held, [], MOMENT, at(35)).attempts == {}
    assert enter(head(TENS), [], MOMENT, at(35), drained=True).attempts == {}
    ((_, missed), _) = enter(head(TENS), [], MOMENT, at(35)).runs
    assert (missed.outcome, missed.scheduled_at) == ("missed", at(10))


def test_the_start_says_for_which_time_it_is() -> None:
    assert text(plan(head(TENS, known(turn=turn(10))), [seen(TENS, phase=Phase.EXITED)], NOW)) == [
        "start web.1.0 after run 1: scheduled for 2026-01-01T00:10:00.000Z"
    ]
    assert text(plan(head(TENS), [], NOW)) == [], "nothing is due"
    assert text(plan(head(TENS, known(turn=turn(10), last_exit=ended(0))), [seen(TENS, phase=Phase.EXITED)], NOW)) == []


NEXT = "next run at 2026-01-01T00:20:00.000Z"


@pytest.mark.parametrize(
    ("what", "before", "phase", "expected"),
    [
        ("before the first run", {}, None, "100 completed waiting for its first run; next run at 2026-01-01T00:10:00.000Z"),
        (
            "after a good one",
            {"turn": turn(10), "last_exit": ended(0), "exits": 1, "failures": 1},
            Phase.EXITED,
            f"100 completed completed: exited with code 0; {NEXT}",
        ),
        (
            "after a bad one",
            {"turn": turn(10), "last_exit": ended(2), "exits": 3, "failures": 3},
            Phase.EXITED,
            f"0 failed exited with code 2; {NEXT}",
        ),
        (
            "between attempts",
            {"turn": turn(10), "last_exit": ended(2), "exits": 1, "failures": 1},
            Phase.EXITED,
            "85 running exited with code 2; attempt 2 of 3 follows",
        ),
        (
            "between attempts, after a bad one",
            {"turn": turn(10, failed="exited with code 9"), "last_exit": ended(2), "exits": 1, "failures": 1},
            Phase.EXITED,
            f"0 failed exited with code 9; {NEXT}",
        ),
        ("running", {"turn": turn(10), "started": True}, Phase.RUNNING, "100 running Running"),
        (
            "running again",
            {"turn": turn(10), "started": True, "last_exit": ended(2), "exits": 1},
            Phase.RUNNING,
            "85 running running again: exited with code 2",
        ),
        (
            "running, after a bad one",
            {"turn": turn(10, failed="exited with code 9"), "started": True},
            Phase.RUNNING,
            "0 failed exited with code 9; running again",
        ),
        ("missed", {"turn": Turn(at(10))}, None, f"100 completed waiting for its first run; {NEXT}"),
        ("cannot be started", {"turn": turn(10), "failures": 2, "last_failure": "cannot start it"}, None, "0 failed cannot start it"),
        (
            "nobody knows",
            {"turn": turn(10), "last_exit": ended(None, lost=True, reason="exit status unknown"), "exits": 1, "failures": 1},
            Phase.EXITED,
            f"0 failed outcome unknown: exit status unknown; {NEXT}",
        ),
    ],
)
def test_how_well_a_script_with_a_schedule_is(what: str, before: dict[str, Any], phase: Phase | str | None, expected: str) -> None:
    observed = [seen(TENS, phase=phase)] if isinstance(phase, Phase) else [seen(TENS, started=NOW - 4)] if phase else []
    health = assess(head(TENS, known(**before)), observed, NOW).health
    assert f"{health.level} {health.status} {health.msg}" == expected, what


def test_a_short_run_is_one_change_of_health() -> None:
    young = head(TENS, known(turn=turn(10, succeeded=True), started=True))
    assert assess(young, [seen(TENS, started=NOW - 4)], NOW).wake_at == NOW + 1
    over = head(TENS, known(turn=turn(10, succeeded=True), last_exit=ended(0), exits=1, failures=1))
    assert assess(young, [seen(TENS, started=NOW - 4)], NOW).health == assess(over, [seen(TENS, phase=Phase.EXITED)], NOW).health

"""When a script's check is asked, and what follows from what it says."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from boreas_agent.backoff import Moment, after_exit, after_failure, after_start, finished, given_up
from boreas_agent.checking import answered, following, last_words, seconds
from boreas_agent.health import assess
from boreas_agent.ledger import enter
from boreas_agent.model import Attempts, Checked, Deadline, Executed, Exit, Phase
from boreas_agent.planner import plan
from boreas_agent.rehearsal import rehearse
from boreas_agent.spec import ScriptPkg
from tests.unit.test_planner import NOW, T0, ended, head, revision, seen, text, tried

CHECKED = revision(
    1, "v1", type="script", command=["true"], check="test -e /f", check_interval_seconds=30, restart={"initial_delay_seconds": 4}
)
PKG = CHECKED.pkg
assert isinstance(PKG, ScriptPkg)
MOMENT = Moment(NOW, "b", 0.0)
AGAIN = Deadline(NOW + 30, 30, "b")
PASSED = Checked(passed=True, words="check passed", again=AGAIN)
FAILED = Checked(passed=False, words="check exited with code 1", again=AGAIN)
DRIFT = replace(FAILED, drift=True)
STALE = Deadline(NOW - 1, 30, "b")
SOON = Deadline(NOW + 4, 4, "b")


def at_hand(**more: Any) -> Attempts:
    return tried(CHECKED, **more)


@pytest.mark.parametrize(
    ("what", "known", "expected"),
    [
        ("new", {}, "ask: whether the script need run"),
        ("it passed", {"checked": PASSED}, "wake at 1030"),
        ("its interval is over", {"checked": replace(PASSED, again=STALE)}, "ask: its interval has passed"),
        ("never run, and it fails", {"checked": FAILED}, "run: check exited with code 1"),
        ("it passed before", {"checked": DRIFT}, "run: drift: check exited with code 1"),
        ("a run has ended", {"last_exit": ended(0), "exits": 1, "not_before": SOON}, "ask: its run ended: exited with code 0"),
        ("a run has failed", {"last_exit": ended(3), "exits": 1, "not_before": SOON}, "ask: its run ended: exited with code 3"),
        ("the run did not help", {"last_exit": ended(0), "exits": 1, "not_before": SOON, "checked": FAILED}, "wake at 1004"),
        (
            "the wait is over",
            {"last_exit": ended(0), "exits": 1, "checked": FAILED},
            "run: exited with code 0, and yet check exited with code 1",
        ),
        ("the last attempt did not help", {"last_exit": ended(0), "exits": 3, "checked": FAILED}, "wake at 1030"),
        (
            "given up, and asked again",
            {"last_exit": ended(0), "exits": 3, "checked": replace(FAILED, again=STALE)},
            "ask: its interval has passed",
        ),
        (
            "nobody knows how it ended",
            {"last_exit": ended(None, lost=True, reason="exit status unknown"), "exits": 1},
            "ask: its run ended: exit status unknown",
        ),
        ("and the check cannot tell", {"last_exit": ended(None, lost=True), "exits": 1, "checked": FAILED}, "wake at 1030"),
        ("it could not be asked", {"last_failure": "cannot ask", "not_before": SOON, "failures": 1}, "wake at 1004"),
        ("and is asked anew", {"last_failure": "cannot ask", "failures": 1}, "ask: trying again: cannot ask"),
    ],
)
def test_what_is_to_be_done_next(what: str, known: dict[str, Any], expected: str) -> None:
    then = following(at_hand(**known), PKG, NOW)
    found = f"wake at {then.wake_at:g}" if then.wake_at is not None else f"{'ask' if then.ask else 'run'}: {then.cause}"
    assert found == expected, what


def test_an_answer_of_zero_settles_everything_before_it() -> None:
    lost = at_hand(last_exit=ended(None, lost=True), exits=1, failures=1, not_before=SOON)
    settled, told = answered(lost, Executed(0), PKG, MOMENT)
    assert settled == at_hand(checked=PASSED)
    assert (finished(settled, PKG), given_up(settled, PKG)) == (True, False)
    assert told == (("CheckPassed", "check passed: all is as it should be"),)
    assert answered(settled, Executed(0), PKG, MOMENT)[1] == (), "the same again is no news"


def test_a_check_that_fails_after_it_had_passed_is_drift_until_it_passes_or_something_ran() -> None:
    drifted, told = answered(at_hand(checked=PASSED), Executed(1, "no\n f "), PKG, MOMENT)
    assert drifted.checked == replace(DRIFT, words="check exited with code 1: no f")
    assert told == (("CheckFailed", "check exited with code 1: no f"),)
    again, told = answered(drifted, Executed(1, "no f"), PKG, MOMENT)
    assert (again.checked, told) == (drifted.checked, ())
    started = after_start(drifted, PKG.restart, MOMENT)
    assert (started.checked, started.restarts) == (None, 1), "the repair is counted"


def test_a_run_or_a_start_that_failed_makes_what_the_check_said_void() -> None:
    assert after_failure(at_hand(checked=FAILED), "cannot start", PKG.restart, MOMENT).checked is None
    assert after_exit(at_hand(checked=FAILED), "1.1", ended(0), PKG, MOMENT).checked is None


def test_an_answer_counts_for_another_boot_as_long_as_it_would_have() -> None:
    account = enter(head(CHECKED, at_hand(checked=PASSED)), [seen(CHECKED, phase=Phase.CREATED)], Moment(5.0, "next boot", 0.0), T0)
    checked = account.attempts[0].checked
    assert checked is not None
    assert checked.again == Deadline(35.0, 30, "next boot")


def test_a_check_takes_no_longer_than_a_run_may() -> None:
    assert seconds(PKG) == 60
    assert seconds(PKG.model_copy(update={"timeout_seconds": 5.0})) == 5


@pytest.mark.parametrize(
    ("what", "known", "phase", "expected"),
    [
        ("new", {}, None, "10 deploying asking its check"),
        ("it passed", {"checked": PASSED}, Phase.CREATED, "100 completed completed: check passed"),
        ("it is being asked again", {"checked": replace(PASSED, again=STALE)}, Phase.CREATED, "100 completed completed: check passed"),
        ("about to run", {"checked": FAILED}, Phase.CREATED, "10 deploying check exited with code 1"),
        ("it has run", {"last_exit": ended(0), "exits": 1, "failures": 1}, Phase.EXITED, "10 deploying asking its check"),
        (
            "in vain",
            {"last_exit": ended(0), "exits": 1, "failures": 1, "checked": FAILED},
            Phase.EXITED,
            "5 deploying exited with code 0, and yet check exited with code 1; attempt 2 of 3 follows",
        ),
        (
            "in vain, for the last time",
            {"last_exit": ended(0), "exits": 3, "failures": 3, "checked": FAILED},
            Phase.EXITED,
            "0 failed exited with code 0, and yet check exited with code 1",
        ),
        (
            "it failed",
            {"last_exit": ended(3), "exits": 3, "failures": 3, "checked": FAILED},
            Phase.EXITED,
            "0 failed exited with code 3; check exited with code 1",
        ),
        ("it failed, and all is well", {"checked": PASSED}, Phase.EXITED, "100 completed completed: check passed"),
        (
            "nobody knows",
            {
                "last_exit": ended(None, lost=True, reason="outcome unknown: the machine restarted"),
                "exits": 1,
                "failures": 1,
                "checked": FAILED,
            },
            Phase.EXITED,
            "0 failed outcome unknown: the machine restarted; check exited with code 1",
        ),
        ("nobody can ask", {"last_failure": "cannot ask the check", "failures": 2}, Phase.CREATED, "0 failed cannot ask the check"),
    ],
)
def test_how_well_a_script_with_a_check_is(what: str, known: dict[str, Any], phase: Phase | None, expected: str) -> None:
    observed = [seen(CHECKED, phase=phase)] if phase else []
    health = assess(head(CHECKED, at_hand(**known)), observed, NOW).health
    assert f"{health.level} {health.status} {health.msg}" == expected, what


def test_the_check_comes_where_the_start_would() -> None:
    assert text(plan(head(CHECKED), [], NOW)) == ["prepare web.1.0", "check web.1.0 for 60 s: whether the script need run"]
    run = plan(head(CHECKED, at_hand(checked=FAILED)), [seen(CHECKED, phase=Phase.CREATED)], NOW)
    assert text(run) == ["start web.1.0 after run 1: check exited with code 1"]
    assert text(plan(head(CHECKED, at_hand(checked=PASSED)), [seen(CHECKED, phase=Phase.CREATED)], NOW)) == ["wake at 1030"]


def test_a_preview_ends_with_the_check_for_nobody_knows_what_it_would_say() -> None:
    (stride,) = rehearse(head(CHECKED), [], NOW)
    assert [type(action).__name__ for action in stride] == ["Prepare", "Check"]


TIMED = revision(1, "v1", type="script", command=["true"], timeout_seconds=5, retries=0)


def test_a_run_that_takes_too_long_is_stopped_and_its_end_is_a_failure_whatever_its_status() -> None:
    young, old = seen(TIMED, started=NOW - 4, life="1"), seen(TIMED, started=NOW - 5, life="1")
    assert text(plan(head(TIMED, tried(TIMED, started=True)), [young], NOW)) == ["wake at 1001"]
    attempts = enter(head(TIMED, tried(TIMED, started=True)), [old], MOMENT, T0).attempts
    assert attempts[0].overdue == "1.1"
    assert text(plan(head(TIMED, *attempts.values()), [old], NOW)) == ["stop web.1.0 by SIGTERM within 10 s: timed out after 5 s"]
    over = replace(old, phase=Phase.EXITED, exits=(Exit("1", T0, T0, 0, seconds=6.0),))
    account = enter(head(TIMED, *attempts.values()), [over], MOMENT, T0)
    ((_, end),) = account.exits
    assert (end.ok, str(end), end.reason) == (False, "timed out after 5 s", "stopped: timed out after 5 s")
    ((_, run),) = account.runs
    assert (run.outcome, run.code, run.reason) == ("timed-out", 0, "stopped: timed out after 5 s")
    assert last_words(account.attempts[0]) == "timed out after 5 s"


def test_a_run_that_ended_by_itself_before_anybody_found_it_too_long_counts_as_it_ended() -> None:
    over = seen(TIMED, phase=Phase.EXITED, started=10.0, life="1", exits=(Exit("1", T0, T0, 0, seconds=600.0),))
    ((_, run),) = enter(head(TIMED, tried(TIMED, started=True)), [over], MOMENT, T0).runs
    assert run.outcome == "succeeded"


def test_a_run_is_told_of_when_it_begins_and_when_it_ends_and_never_in_between() -> None:
    begun = enter(head(TIMED), [seen(TIMED, started=NOW - 1, life="1")], MOMENT, T0)
    ((_, run),) = begun.runs
    assert (run.run, run.outcome, (T0 - run.started_at).total_seconds() if run.started_at else None) == ("1", None, 1.0)
    again = enter(head(TIMED, *begun.attempts.values()), [seen(TIMED, started=NOW - 1, life="1")], MOMENT, T0)
    assert again.runs == ()

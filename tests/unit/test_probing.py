"""From results of probes to a verdict: thresholds, gates, blemishes, and what survives the agent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from boreas_agent.model import Phase, Revision
from boreas_agent.probing import BLEMISH_SECONDS, Course, Defaults, Result, advance, begin, targets, timing, told_by_engine
from boreas_agent.spec.probes import ProbeKind
from tests.unit.test_planner import NOW, head, revision, seen, tried

TCP = {"tcp": {"port": 80}}
YES, NO, NOBODY_KNOWS = Result(True), Result(False, "refused"), Result(None, "the engine is away")


def asking(**health: Any) -> Revision:
    return revision(health={kind: TCP | numbers for kind, numbers in health.items()})


def course(of: Revision, *results: tuple[ProbeKind, Result], after: Course | None = None, step: float = 1.0) -> Course:
    """The course of a run after these results, one each ``step`` seconds."""
    going = after or begin(seen(of), head(of), 0, NOW)
    for index, (kind, result) in enumerate(results, 1):
        going = advance(going, kind, result, timing(kind, of.pkg.health.probes[kind], Defaults()), NOW + index * step)
    return going


def many(kind: ProbeKind, result: Result, times: int) -> Sequence[tuple[ProbeKind, Result]]:
    return [(kind, result)] * times


ALL = asking(startup={"failure_threshold": 2}, readiness={}, liveness={})


def test_the_numbers_left_out_are_the_agents_and_change_nothing_about_the_spec() -> None:
    numbers = timing("readiness", ALL.pkg.health.probes["readiness"], Defaults(7, 2, 5))
    assert (numbers.interval, numbers.timeout, numbers.failures, numbers.successes, numbers.delay) == (7, 2, 5, 1, 0)
    own = asking(readiness={"interval_seconds": 1, "timeout_seconds": 0.5, "failure_threshold": 9, "success_threshold": 2})
    numbers = timing("readiness", own.pkg.health.probes["readiness"], Defaults(7, 2, 5))
    assert (numbers.interval, numbers.timeout, numbers.failures, numbers.successes) == (1, 0.5, 9, 2)


def test_startup_holds_the_others_back_until_it_has_passed() -> None:
    fresh = course(ALL)
    assert [kind for kind in ("startup", "readiness", "liveness") if fresh.due(kind)] == ["startup"]
    assert not fresh.probed.ready
    started = course(ALL, ("startup", YES))
    assert [kind for kind in ("startup", "readiness", "liveness") if started.due(kind)] == ["readiness", "liveness"]
    assert (started.probed.started, started.probed.ready) == (True, False)


def test_a_result_that_comes_too_early_or_too_late_for_its_stage_changes_nothing() -> None:
    assert course(ALL, ("liveness", NO), ("liveness", NO), ("liveness", NO)) == course(ALL)
    started = course(ALL, ("startup", YES))
    assert course(ALL, ("startup", NO), ("startup", NO), after=started) == started


def test_a_startup_probe_that_fails_as_often_as_it_may_dooms_the_run() -> None:
    assert course(ALL, ("startup", NO)).probed.doomed == ""
    assert course(ALL, ("startup", NO)).probed.why == "startup probe failed: refused"
    doomed = course(ALL, *many("startup", NO, 2)).probed
    assert (doomed.doomed, doomed.well_seconds) == ("startup probe failed 2 times: refused", 0.0)


def test_without_a_startup_or_readiness_probe_a_run_is_ready_at_once() -> None:
    only_liveness = course(asking(liveness={})).probed
    assert (only_liveness.started, only_liveness.ready, only_liveness.well_since) == (True, True, NOW)


def test_readiness_comes_and_goes_with_its_thresholds() -> None:
    of = asking(readiness={"success_threshold": 2, "failure_threshold": 2})
    assert not course(of, ("readiness", YES), ("readiness", NO), ("readiness", YES)).probed.ready
    ready = course(of, *many("readiness", YES, 2))
    assert (ready.probed.ready, ready.probed.well_since) == (True, NOW + 2)
    once = course(of, ("readiness", NO), after=ready).probed
    assert (once.ready, once.blemish, once.well_since) == (True, "readiness probe failed: refused", NOW + 2)
    lost = course(of, *many("readiness", NO, 2), after=ready).probed
    assert (lost.ready, lost.lost, lost.why, lost.well_since) == (False, True, "readiness probe failed 2 times: refused", None)
    assert lost.doomed == "", "readiness restarts nothing"


def test_liveness_begins_well_and_dooms_at_its_threshold() -> None:
    of = asking(liveness={})
    assert course(of, *many("liveness", NO, 2)).probed.doomed == ""
    assert course(of, ("liveness", NO), ("liveness", YES), *many("liveness", NO, 2)).probed.doomed == ""
    assert course(of, *many("liveness", NO, 3)).probed.doomed == "liveness probe failed 3 times: refused"


def test_how_long_it_was_well_ends_with_the_first_failure_of_the_row() -> None:
    of = asking(liveness={})
    assert course(of, *many("liveness", YES, 4), *many("liveness", NO, 3)).probed.well_seconds == 5.0
    assert course(of, *many("liveness", NO, 3)).probed.well_seconds == 0.0, "one that never passed was never well"


def test_what_recovers_before_it_was_stopped_is_spared() -> None:
    of = asking(liveness={})
    assert course(of, *many("liveness", NO, 3), ("liveness", YES)).probed.doomed == ""


def test_what_nobody_can_know_is_no_result() -> None:
    of = asking(liveness={})
    twice = course(of, *many("liveness", NO, 2))
    assert course(of, *many("liveness", NOBODY_KNOWS, 10), after=twice) == twice


def test_a_blemish_stays_for_a_while_so_that_a_flickering_probe_does_not_flood_the_history() -> None:
    of = asking(liveness={})
    flickering = [("liveness", NO), ("liveness", YES)] * 20
    verdicts, going = set(), course(of, ("liveness", YES))
    for index, one in enumerate(flickering):
        going = advance(going, one[0], one[1], timing("liveness", of.pkg.health.probes["liveness"], Defaults()), NOW + index)
        verdicts.add(going.probed)
    assert len(verdicts) == 1, "one blemish"
    later = NOW + len(flickering) + BLEMISH_SECONDS
    assert advance(going, "liveness", YES, timing("liveness", of.pkg.health.probes["liveness"], Defaults()), later).probed.blemish == ""


def test_what_failed_while_it_came_up_is_no_blemish_once_it_is_there() -> None:
    of = asking(liveness={})
    assert course(of, ("liveness", NO)).probed.blemish == "liveness probe failed: refused"
    assert course(of, ("liveness", NO), ("liveness", YES)).probed.blemish == ""
    assert course(of, ("liveness", YES), ("liveness", NO), ("liveness", YES)).probed.blemish != ""


def test_a_message_that_changes_with_every_result_does_not_change_the_verdict_with_every_result() -> None:
    of, going, verdicts = asking(readiness={}), None, set()
    for index in range(200):
        going = course(of, ("readiness", Result(False, f"request {index}")), after=going)
        verdicts.add(going.probed)
    assert len(verdicts) < 12
    assert going is not None
    assert going.probed.why == "readiness probe failed 3 times: request 127"


def test_an_early_failure_is_told_and_not_counted() -> None:
    of = asking(startup={"failure_threshold": 1})
    early = course(of, ("startup", Result(False, "refused", counts=False))).probed
    assert (early.doomed, early.why) == ("", "startup probe failed: refused")


@given(st.lists(st.booleans(), max_size=30), st.integers(1, 4), st.integers(1, 4))
def test_readiness_is_what_the_last_long_enough_row_says(results: list[bool], successes: int, failures: int) -> None:
    of = asking(readiness={"success_threshold": successes, "failure_threshold": failures})
    expected, row, last = False, 0, None
    for ok in results:
        row, last = (row + 1 if ok is last else 1), ok
        if row >= (successes if ok else failures):
            expected = ok
    assert course(of, *(("readiness", YES if ok else NO) for ok in results)).probed.ready == expected


# --- another agent -----------------------------------------------------------------------------------


def test_what_an_earlier_agent_found_of_the_same_run_stands() -> None:
    ready = course(ALL, ("startup", YES), ("readiness", YES)).probed
    known = tried(ALL, probed=ready)
    again = begin(seen(ALL), head(ALL, known, proven=ALL.instance_hash), 0, NOW + 500)
    assert again.probed == ready
    unproven = begin(seen(ALL), head(ALL, known), 0, NOW + 500)
    assert unproven.probed == replace(ready, well_since=NOW + 500), "nobody looked in between"


def test_what_was_found_of_another_run_or_by_other_probes_does_not() -> None:
    ready = course(ALL, ("startup", YES), ("readiness", YES)).probed
    known = tried(ALL, probed=ready)
    assert not begin(seen(ALL, life="2"), head(ALL, known), 0, NOW).probed.started
    other = revision(health={"startup": {"tcp": {"port": 81}}})
    assert not begin(seen(other), head(other, known), 0, NOW).probed.started


def test_only_running_instances_with_something_to_find_out_are_asked() -> None:
    two = revision(replicas=2, health={"readiness": TCP})
    observed = [seen(two), seen(two, 1, phase=Phase.EXITED), seen(revision(1, "v1"))]
    assert list(targets(head(two), observed)) == [0]
    assert targets(head(revision()), [seen(revision())]) == {}
    assert list(targets(head(revision()), [seen(revision(), checked="starting")])) == [0]
    assert targets(head(revision(kind="remove", health={"readiness": TCP})), observed) == {}


# --- the image's own health check ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("says", "ready", "why"),
    [
        (["starting"], False, "waiting for the image's health check"),
        (["starting", "healthy"], True, ""),
        (["healthy", "unhealthy"], False, "the image's health check fails"),
        (["healthy", "unhealthy", "healthy"], True, ""),
    ],
)
def test_the_images_own_health_check_counts_as_readiness(says: list[Any], ready: bool, why: str) -> None:
    of = revision()
    going = begin(seen(of, checked=says[0]), head(of), 0, NOW)
    for index, word in enumerate(says):
        going = told_by_engine(going, seen(of, checked=word), NOW + index)
    assert (going.probed.ready, going.probed.why) == (ready, why)
    assert told_by_engine(going, seen(of, checked=says[-1]), NOW + 100) == going

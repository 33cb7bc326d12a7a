"""The whole scale of levels."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from boreas_agent.health import assess, unknown
from boreas_agent.model import Attempts, Deadline, Health, Phase, Probed, Revision, Status
from tests.unit.test_planner import NOW, V1, V2, ended, head, revision, seen, tried

YOUNG = NOW - 3


def judge(*args: Any, **more: Any) -> str:
    health = assess(*args, now=NOW, **more).health
    return f"{health.level} {health.status} {health.msg}"


def probed(of: Revision, **found: Any) -> Probed:
    """What the probes found of the run that ``seen`` speaks of: ready for long, unless ``found`` says otherwise."""
    return Probed(seen(of).run_key, "", **{"started": True, "ready": True, "well_since": 10.0, **found})


def asked(of: Revision, replica: int = 0, of_attempts: Mapping[str, Any] = MappingProxyType({}), **found: Any) -> Attempts:
    return tried(of, replica, probed=probed(of, **found), **of_attempts)


TWO = revision(replicas=2)
SCRIPT = revision(type="script", command=["true"])


@pytest.mark.parametrize(
    ("what", "wanted", "attempts", "observed", "expected"),
    [
        ("just recorded", V2, (), (), "10 deploying starting"),
        ("unproven", V2, (), (seen(V2, started=YOUNG),), "30 deploying running for less than 10 s"),
        ("long enough", V2, (), (seen(V2),), "100 running Running"),
        ("old one serves", V2, (), (seen(V1),), "50 deploying revision 1 (v1) still serves; starting"),
        (
            "cannot be fetched",
            V2,
            (tried(V2, failures=3, last_failure="cannot pull x"),),
            (seen(V1),),
            "50 deploying revision 1 (v1) still serves; cannot pull x",
        ),
        ("partly", TWO, (), (seen(TWO), seen(TWO, 1, started=YOUNG)), "64 deploying 1 of 2 replicas ready; running for less than 10 s"),
        ("all of two", TWO, (), (seen(TWO), seen(TWO, 1)), "100 running 2 of 2 replicas running"),
        (
            "first failure",
            V2,
            (tried(V2, failures=1, last_exit=ended(1), not_before=Deadline(NOW + 1, 1, "b")),),
            (seen(V2, phase=Phase.EXITED),),
            "5 deploying exited with code 1; trying again",
        ),
        (
            "crash loop",
            V2,
            (tried(V2, failures=4, exits=4, last_exit=ended(1)),),
            (seen(V2, phase=Phase.EXITED),),
            "0 failed crash-looping: exited with code 1",
        ),
        (
            "crash loop, running at the moment",
            V2,
            (tried(V2, failures=4, exits=4, last_exit=ended(1)),),
            (seen(V2, started=YOUNG),),
            "0 failed crash-looping: exited with code 1",
        ),
        (
            "two pulls failed, then it runs",
            V2,
            (tried(V2, failures=2),),
            (seen(V2, started=YOUNG),),
            "30 deploying running for less than 10 s",
        ),
        (
            "healed",
            V2,
            (tried(V2, failures=1, last_exit=ended(None, signal="SIGKILL"), restarted=Deadline(NOW + 50, 60, "b")),),
            (seen(V2),),
            "90 running restarted: killed by SIGKILL",
        ),
        ("stopped", revision(replicas=0), (), (), "0 stopped stopped: 0 replicas wanted"),
        ("removing", revision(kind="remove"), (), (seen(V2),), "0 removing removing: 1 instance left"),
        ("script runs", SCRIPT, (), (seen(SCRIPT),), "100 running Running"),
        ("script done", SCRIPT, (tried(SCRIPT, last_exit=ended(0)),), (), "100 completed completed: exited with code 0"),
        (
            "script fails once",
            SCRIPT,
            (tried(SCRIPT, failures=1, exits=1, last_exit=ended(3)),),
            (),
            "5 deploying exited with code 3; attempt 2 of 3 follows",
        ),
        (
            "startup probe has not passed",
            V2,
            (asked(V2, started=False, ready=False, why="startup probe failed: refused"),),
            (seen(V2),),
            "20 deploying starting: startup probe failed: refused",
        ),
        (
            "never ready yet",
            V2,
            (asked(V2, ready=False, well_since=None, why="HTTP 503"),),
            (seen(V2),),
            "25 deploying not ready: HTTP 503",
        ),
        ("ready, not for long", V2, (asked(V2, well_since=YOUNG),), (seen(V2),), "30 deploying ready for less than 10 s"),
        ("ready for long enough", V2, (asked(V2),), (seen(V2, started=YOUNG),), "100 running Running"),
        ("a blemish", V2, (asked(V2, blemish="liveness probe failed: x"),), (seen(V2),), "85 running liveness probe failed: x"),
        (
            "a blemish and a restart",
            V2,
            (asked(V2, of_attempts={"restarted": Deadline(NOW + 9, 60, "b"), "last_exit": ended(1)}, blemish="readiness probe failed: x"),),
            (seen(V2),),
            "85 running readiness probe failed: x",
        ),
        (
            "one of two not ready",
            TWO,
            (asked(TWO), asked(TWO, 1, ready=False, lost=True, well_since=None, why="HTTP 500")),
            (seen(TWO), seen(TWO, 1)),
            "64 deploying 1 of 2 replicas ready; not ready: HTTP 500",
        ),
        (
            "given up by its liveness probe",
            V2,
            (asked(V2, doomed="liveness probe failed 3 times: HTTP 500"),),
            (seen(V2),),
            "5 deploying liveness probe failed 3 times: HTTP 500; restarting",
        ),
        (
            "ended by its liveness probe",
            V2,
            (tried(V2, failures=1, exits=1, last_exit=ended(0, unhealthy="liveness probe failed 3 times: HTTP 500")),),
            (seen(V2, phase=Phase.EXITED),),
            "5 deploying liveness probe failed 3 times: HTTP 500; trying again",
        ),
        (
            "ended by its liveness probe, again and again",
            V2,
            (
                asked(
                    V2, of_attempts={"exits": 3, "failures": 3, "last_exit": ended(0, unhealthy="liveness probe failed")}, well_since=YOUNG
                ),
            ),
            (seen(V2),),
            "0 failed crash-looping: liveness probe failed",
        ),
        (
            "findings of an earlier run say nothing",
            V2,
            (tried(V2, probed=replace(probed(V2, doomed="x"), run="2.other")),),
            (seen(V2),),
            "100 running Running",
        ),
        ("script failed", SCRIPT, (tried(SCRIPT, failures=3, exits=3, last_exit=ended(3)),), (), "0 failed exited with code 3"),
    ],
    ids=lambda value: value if isinstance(value, str) and value.isascii() and len(value) < 40 else "",
)
def test_the_level_and_the_words(what: str, wanted: Any, attempts: tuple[Attempts, ...], observed: Any, expected: str) -> None:
    assert judge(head(wanted, *attempts), observed) == expected


def test_a_proven_app_is_healthy_as_soon_as_it_runs_again() -> None:
    killed = tried(V2, failures=1, last_exit=ended(None, signal="SIGKILL"), restarted=Deadline(NOW + 59, 60, "b"))
    assert judge(head(V2, killed, proven=V2.instance_hash), [seen(V2, started=NOW)]) == "90 running restarted: killed by SIGKILL"


def test_a_proven_app_that_crashes_on_and_on_is_not_healthy_between_its_crashes() -> None:
    loops = tried(V2, failures=3, exits=3, last_exit=ended(1), restarted=Deadline(NOW + 59, 60, "b"))
    assert judge(head(V2, loops, proven=V2.instance_hash), [seen(V2, started=NOW)]).startswith("0 failed crash-looping")


def test_a_proven_app_that_is_not_ready_any_more_serves_nobody() -> None:
    lost = asked(V2, ready=False, lost=True, well_since=None, why="readiness probe failed 3 times: HTTP 503")
    said = "0 failed not ready: readiness probe failed 3 times: HTTP 503"
    assert judge(head(V2, lost, proven=V2.instance_hash), [seen(V2)]) == said


def test_a_proven_app_that_was_restarted_is_healthy_as_soon_as_it_is_ready_and_no_sooner() -> None:
    again = {"restarted": Deadline(NOW + 59, 60, "b"), "last_exit": ended(1), "failures": 1, "exits": 1}
    coming = asked(V2, of_attempts=again, ready=False, well_since=None, why="waiting")
    there = asked(V2, of_attempts=again, well_since=NOW)
    assert judge(head(V2, coming, proven=V2.instance_hash), [seen(V2)]) == "25 deploying not ready: waiting"
    assert judge(head(V2, there, proven=V2.instance_hash), [seen(V2)]) == "90 running restarted: exited with code 1"


def test_readiness_for_long_enough_proves_a_revision_and_mere_running_does_not() -> None:
    assert assess(head(V2, asked(V2)), [seen(V2)], NOW).proven == V2.instance_hash
    assert assess(head(V2, asked(V2, well_since=YOUNG)), [seen(V2)], NOW).proven == ""
    assert assess(head(V2, asked(V2, well_since=YOUNG)), [seen(V2)], NOW).wake_at == YOUNG + 10
    assert assess(head(V2, asked(V2, ready=False, well_since=None)), [seen(V2)], NOW).proven == ""


def test_a_revision_is_proven_by_its_own_running_time_only() -> None:
    assert assess(head(V2), [seen(V2)], NOW).proven == V2.instance_hash
    assert assess(head(V2), [seen(V2, started=YOUNG)], NOW).proven == ""


def test_it_says_when_time_alone_will_change_the_verdict() -> None:
    assert assess(head(V2), [seen(V2, started=YOUNG)], NOW).wake_at == YOUNG + 10


@pytest.mark.parametrize(("seconds", "expected"), [(0, 99), (29, 99), (30, 79), (299, 79), (300, 50), (1e6, 50)])
def test_an_unknown_state_drops_with_time_and_not_at_once(seconds: float, expected: int) -> None:
    healthy = replace(head(V2), health=Health(100, Status.RUNNING, "Running"))
    assert unknown(healthy, "Docker does not answer", NOW, NOW + seconds).health.level == expected


phases = st.sampled_from([None, Phase.CREATED, Phase.RUNNING, Phase.PAUSED, Phase.EXITED])


@given(st.lists(st.tuples(phases, st.floats(0, 100), st.integers(0, 5)), min_size=1, max_size=4), st.booleans())
def test_a_level_of_80_or_more_means_that_every_replica_runs(replicas: list[Any], proven: bool) -> None:
    wanted = revision(replicas=len(replicas))
    attempts = [
        tried(wanted, index, failures=count, exits=count, last_exit=ended(1) if count else None)
        for index, (_, _, count) in enumerate(replicas)
    ]
    observed = [seen(wanted, i, phase, started=NOW - age) for i, (phase, age, _) in enumerate(replicas) if phase is not None]
    health = assess(head(wanted, *attempts, proven=wanted.instance_hash if proven else ""), observed, NOW).health
    assert 0 <= health.level <= 100
    assert (health.level >= 80) <= all(phase is Phase.RUNNING for phase, _, _ in replicas)


findings = st.builds(
    lambda stage, lost, blemish, doomed, age: {
        "started": stage > 0,
        "ready": stage > 1,
        "lost": lost and stage == 1,
        "blemish": blemish,
        "doomed": doomed,
        "well_since": NOW - age if stage > 1 else None,
        "why": "" if stage > 1 else "x",
    },
    st.integers(0, 2),
    st.booleans(),
    st.sampled_from(["", "y"]),
    st.sampled_from(["", "z"]),
    st.floats(0, 100),
)


@given(st.lists(st.tuples(findings, st.integers(0, 3)), min_size=1, max_size=4), st.booleans())
def test_what_does_not_serve_is_never_at_80_and_100_means_that_all_is_well(replicas: list[Any], proven: bool) -> None:
    wanted = revision(replicas=len(replicas))
    attempts = [
        asked(wanted, index, {"failures": count, "exits": count, "last_exit": ended(1) if count else None}, **found)
        for index, (found, count) in enumerate(replicas)
    ]
    observed = [seen(wanted, index) for index in range(len(replicas))]
    level = assess(head(wanted, *attempts, proven=wanted.instance_hash if proven else ""), observed, NOW).health.level
    serves = [found["ready"] and not found["doomed"] for found, _ in replicas]
    assert (level >= 80) <= all(serves)
    assert (level >= 50) <= any(serves)
    assert (level == 100) <= all(not found["blemish"] for found, _ in replicas)


@given(findings, findings, st.integers(0, 3), st.booleans())
def test_what_is_found_worse_is_never_rated_higher(one: dict[str, Any], other: dict[str, Any], count: int, proven: bool) -> None:
    def level(found: dict[str, Any]) -> int:
        attempts = asked(V2, 0, {"failures": count, "exits": count, "last_exit": ended(1) if count else None}, **found)
        return assess(head(V2, attempts, proven=V2.instance_hash if proven else ""), [seen(V2)], NOW).health.level

    def goodness(found: dict[str, Any]) -> tuple[bool, ...]:
        long = found["well_since"] is not None and NOW - found["well_since"] >= 10
        return (not found["doomed"], found["started"], found["ready"], not found["lost"], not found["blemish"], long)

    if all(a <= b for a, b in zip(goodness(one), goodness(other), strict=True)):
        assert level(one) <= level(other)


@given(st.integers(0, 6), st.integers(0, 6), st.floats(0, 100))
def test_more_failures_never_make_the_level_higher(fewer: int, more: int, age: float) -> None:
    fewer, more = sorted((fewer, more))
    levels = [
        assess(
            head(V2, tried(V2, failures=count, exits=count, last_exit=ended(1) if count else None)), [seen(V2, started=NOW - age)], NOW
        ).health.level
        for count in (fewer, more)
    ]
    assert levels[0] >= levels[1]

"""Which app waits for which: tables over the pure part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from msgspec.structs import replace

from boreas_agent import dependencies
from boreas_agent.backoff import Moment
from boreas_agent.dependencies import Familiar, Found, familiar, find, hold_back, lacks, newcomers, path_back, why
from boreas_agent.health import assess
from boreas_agent.model import Head, Health, Observed, Phase, Probed, Revision, Status, Waiting
from boreas_agent.planner import plan
from boreas_agent.probing import digest
from boreas_agent.spec import Dependency
from tests.unit.test_planner import NOW, T0, ended, head, revision, seen, text, tried

DB = revision(1)
JOB = revision(1, type="script", command=["true"])
OLD = revision(1, "v1")
WEB = revision(2, depends_on=["db"])
PROBED = revision(1, health={"readiness": {"tcp": {"port": 1}}})


def found(of: Revision, *observed: Observed, proven: bool = True, tries: Sequence[Any] = (), **more: Any) -> Found:
    moment = Moment(NOW, "boot-1", 0.0)
    return find(head(of, *tries, proven=of.instance_hash if proven else "", **more), observed, moment, T0)


@pytest.mark.parametrize(
    ("condition", "seen_of_it", "expected"),
    [
        ("running", None, "db: there is no such app on this node"),
        ("running", found(revision(2, kind="remove"), seen(DB)), "db: it is being removed"),
        ("running", found(revision(1, replicas=0)), "db: it is stopped, for 0 replicas of it are wanted"),
        ("running", replace(found(DB), unknown="docker does not answer"), "db: docker does not answer"),
        ("running", found(DB), "db to be running: db is deploying (10)"),
        ("running", found(DB, seen(DB)), ""),
        ("running", found(DB, seen(DB, phase=Phase.PAUSED)), "db to be running: db is deploying (5)"),
        ("running", found(DB, seen(DB, phase=Phase.EXITED)), "db to be running: db is deploying (10)"),
        ("running", found(revision(1, replicas=2), seen(revision(1, replicas=2))), "db to be running: db is degraded (64)"),
        ("running", found(DB, seen(DB, started=NOW - 1), proven=False), ""),
        ("running", found(revision(2, "v2"), seen(OLD), proven=False), "db to be running: db is deploying (50)"),
        ("running", found(JOB, seen(JOB, phase=Phase.EXITED), tries=[tried(JOB, last_exit=ended(0))]), ""),
        (
            "running",
            found(JOB, seen(JOB, phase=Phase.EXITED), tries=[tried(JOB, exits=3, last_exit=ended(3))]),
            "db to be running: db is failed (0)",
        ),
        ("healthy", found(DB, seen(DB)), ""),
        ("healthy", found(DB, seen(DB, started=NOW - 1), proven=False), "db to be healthy: db is deploying (30)"),
        ("healthy", found(revision(2, "v2"), seen(OLD), proven=False), "db to be healthy: db is deploying (50)"),
        ("completed", found(DB, seen(DB)), "db to complete: db is running (100)"),
        ("completed", found(JOB, seen(JOB)), "db to complete: db is running (100)"),
        ("completed", found(JOB, seen(JOB, phase=Phase.EXITED), tries=[tried(JOB, last_exit=ended(0))]), ""),
    ],
)
def test_a_condition_holds_or_it_is_said_why_not(condition: Any, seen_of_it: Found | None, expected: str) -> None:
    assert lacks(Dependency(app="db", condition=condition), seen_of_it) == expected


def test_what_is_on_record_of_an_earlier_run_does_not_make_it_healthy() -> None:
    runs = seen(PROBED, life="2")
    of_this_run = Probed(runs.run_key, digest(PROBED.pkg), started=True, ready=True, well_since=10.0)
    need = Dependency(app="db", condition="healthy")
    for probed, holds in (
        (of_this_run, True),
        (replace(of_this_run, run="1.1"), False),
        (replace(of_this_run, by="others"), False),
        (None, False),
    ):
        it = found(PROBED, runs, tries=[tried(PROBED, started=True, probed=probed)])
        assert (lacks(need, it) == "", it.up) == (holds, True)


def test_the_words_name_some_of_many_and_count_the_rest() -> None:
    needs = [Dependency(app=name) for name in ("a", "b", "c", "d", "e")]
    assert why("web", needs, {"b": found(DB, seen(DB))}, lambda _: ()) == (
        "waiting for a: there is no such app on this node, and for c: there is no such app on this node, "
        "and for d: there is no such app on this node, and for 1 more"
    )
    assert why("web", [needs[1]], {"b": found(DB, seen(DB))}, lambda _: ()) == ""


def test_an_app_that_waits_for_itself_says_so() -> None:
    graph = {"web": ["db"], "db": ["web"]}
    said = why("web", [Dependency(app="db")], {"db": found(DB)}, graph.__getitem__)
    assert said == "waits for itself: web -> db -> web; waiting for db to be running: db is deploying (10)"


GRAPH: Mapping[str, Sequence[str]] = {"a": ["b", "c"], "b": ["d"], "c": ["a"], "d": [], "loop": ["loop"], "e": ["a"]}


@pytest.mark.parametrize(
    ("app", "needs", "expected"),
    [
        ("a", GRAPH["a"], ("a", "c", "a")),
        ("b", ["d"], ()),
        ("b", ["e"], ("b", "e", "a", "b")),
        ("loop", ["loop"], ("loop", "loop")),
        ("e", ["loop"], ()),
        ("e", ["nobody"], ()),
        ("e", [], ()),
    ],
)
def test_the_shortest_way_back_is_found(app: str, needs: Sequence[str], expected: tuple[str, ...]) -> None:
    assert path_back(app, needs, lambda name: GRAPH.get(name, ())) == expected


def test_everything_before_an_app_is_what_it_depends_on_directly_or_not() -> None:
    assert dependencies.everything_before("e", ["a"], lambda name: GRAPH[name]) == {"a", "b", "c", "d"}


def test_a_removed_app_needs_nobody() -> None:
    assert dependencies.needed(head(WEB)) == ("db",)
    assert dependencies.needed(head(revision(3, kind="remove", depends_on=["db"]))) == ()
    assert dependencies.needed(None) == ()


# --- what of a plan waits ------------------------------------------------------------------------


def waiting_plan(app: Head, *observed: Observed, known: Familiar | None = None) -> Sequence[str]:
    """What is left of the plan while everything new waits."""
    planned = plan(app, observed, NOW)
    new = newcomers(planned, app, observed, familiar(known, app, observed, 0))
    return text(hold_back(planned, app, Waiting(new, "waiting")) if new else planned)


def knows(of: Revision, *replicas: int) -> Familiar:
    return Familiar(of.instance_hash, 0, frozenset(replicas))


TWO, OLD_TWO = revision(2, replicas=2, depends_on=["db"]), revision(1, "v1", replicas=2)
DOOMED = tried(WEB, started=True, probed=Probed("2.", "x", started=True, doomed="liveness probe failed 3 times"))
WANTS_IT = "revision 2 (v2) wants it"


@pytest.mark.parametrize(
    ("app", "observed", "known", "expected"),
    [
        (head(WEB), (), None, ["prepare web.2.0"]),
        (head(WEB), (seen(OLD),), None, ["prepare web.2.0"]),
        (head(WEB), (seen(WEB),), None, []),
        (head(WEB), (seen(WEB, phase=Phase.EXITED),), None, []),
        (head(WEB), (seen(WEB, phase=Phase.CREATED),), None, []),
        (head(WEB), (seen(WEB, phase=Phase.EXITED),), Familiar(WEB.instance_hash, 7, frozenset({0})), []),
        (head(WEB), (seen(WEB, phase=Phase.EXITED),), Familiar("another", 0, frozenset({0})), []),
        (head(WEB), (seen(WEB, phase=Phase.EXITED),), knows(WEB, 0), [f"start web.2.0 after run 1: {WANTS_IT}"]),
        (head(WEB), (), knows(WEB, 0), ["prepare web.2.0", f"start web.2.0 after run 0: {WANTS_IT}"]),
        (head(WEB, DOOMED), (seen(WEB),), None, ["stop web.2.0 by SIGTERM within 10 s: liveness probe failed 3 times"]),
        (head(TWO), (seen(TWO), seen(TWO, 1, misnamed=True)), None, ["rename web.2.1: it was renamed"]),
        (head(TWO), (seen(TWO),), None, ["prepare web.2.1"]),
        (head(TWO), (seen(OLD_TWO), seen(OLD_TWO, 1)), None, ["prepare web.2.0"]),
        (head(TWO), (seen(OLD_TWO, 1),), knows(TWO, 0), ["prepare web.2.0", f"start web.2.0 after run 0: {WANTS_IT}"]),
        (head(TWO), (seen(OLD_TWO), seen(OLD_TWO, 1)), knows(TWO, 0), ["prepare web.2.0"]),
        (head(WEB), (seen(WEB), seen(OLD)), None, ["stop web.1.0 by SIGTERM within 10 s: superseded by revision 2 (v2)"]),
        (head(WEB), (seen(OLD, phase=Phase.EXITED),), None, ["prepare web.2.0", "remove web.1.0: superseded by revision 2 (v2)"]),
    ],
    ids=[
        "new",
        "the old one serves on",
        "what runs is left alone",
        "nothing has run since the agent began",
        "was made and never started",
        "the engine came anew",
        "another make",
        "a crash is healed",
        "what somebody deleted is healed",
        "a probe has given it up",
        "repairs",
        "one more replica",
        "a rollout",
        "healed where there is room",
        "no room is made for what is healed",
        "nothing new is started",
        "what has ended goes",
    ],
)
def test_what_waits_leaves_everything_else_to_be_done(
    app: Head, observed: tuple[Observed, ...], known: Familiar | None, expected: Sequence[str]
) -> None:
    assert waiting_plan(app, *observed, known=known) == expected


def test_familiar_is_what_has_been_seen_running_and_is_still_wanted() -> None:
    both = familiar(None, head(TWO), (seen(TWO), seen(TWO, 1, Phase.EXITED)), 3)
    assert both == Familiar(TWO.instance_hash, 3, frozenset({0}))
    assert familiar(knows(TWO, 0, 1), head(WEB), (), 0).replicas == {0}


# --- how that looks ------------------------------------------------------------------------------

WAITS = Waiting(frozenset({0}), "waiting for db: it is being removed")
FELL = {"last_exit": ended(3), "failures": 5, "exits": 5}


@pytest.mark.parametrize(
    ("app", "observed", "expected"),
    [
        (head(WEB), (), Health(10, Status.DEPLOYING, WAITS.why)),
        (head(WEB, tried(WEB, **FELL)), (seen(WEB, phase=Phase.EXITED),), Health(10, Status.DEPLOYING, WAITS.why)),
        (head(WEB), (seen(OLD),), Health(50, Status.DEPLOYING, f"revision 1 (v1) still serves; {WAITS.why}")),
        (
            head(TWO, proven=TWO.instance_hash),
            (seen(TWO, 1),),
            Health(64, Status.DEGRADED, f"1 of 2 replicas ready; {WAITS.why}"),
        ),
    ],
    ids=["new", "crashed before", "the old one serves", "part of it serves"],
)
def test_status_says_what_is_waited_for(app: Head, observed: tuple[Observed, ...], expected: Health) -> None:
    assert assess(app, observed, NOW, WAITS).health == expected


def test_what_would_start_after_what_waits_waits_for_the_same() -> None:
    """In strides it need not be the first replica that would start first."""
    second = Waiting(frozenset({1}), WAITS.why)
    assert assess(head(TWO), (seen(OLD),), NOW, second).health.msg == f"revision 1 (v1) still serves; {WAITS.why}"
    again = head(TWO, tried(TWO, **FELL))
    assert assess(again, (seen(TWO, phase=Phase.EXITED),), NOW, second).health.msg == "crash-looping: exited with code 3"
    at_rest = Waiting(frozenset(), "waiting for web to stop")
    assert assess(head(TWO), (), NOW, at_rest).health.msg == "starting"

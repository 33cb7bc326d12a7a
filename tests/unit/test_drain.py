"""What an app comes to while the node is drained: tables over the pure part."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from msgspec.structs import replace

from boreas_agent import drain, planner
from boreas_agent.health import assess
from boreas_agent.model import Drained, Head, Health, Hold, Observed, Phase, Revision, Status
from tests.unit.test_planner import NOW, ended, head, revision, seen, tried

WHO = Drained("api 127.0.0.1", "new disk", datetime(2026, 1, 1, tzinfo=UTC))
WEB = revision(replicas=2)
JOB = revision(type="script", command=["true"])


def planned(app: Head, *observed: Observed, drained: Drained | None = WHO) -> list[str]:
    read = drain.wanted(app, drained)
    actions = drain.plan(read, planner.plan(read, observed, NOW), drained).actions
    return [f"{type(action).__name__}: {action.cause}" for action in actions]


def judged(app: Head, *observed: Observed) -> Health:
    read = drain.wanted(app, WHO)
    return drain.health(read, observed, assess(read, observed, NOW).health, WHO)


@pytest.mark.parametrize("wanted", [WEB, JOB])
def test_without_a_drain_nothing_is_different(wanted: Revision) -> None:
    app = head(wanted)
    assert drain.wanted(app, None) is app
    assert [line.split(":")[0] for line in planned(app, drained=None)][-1] == "Start"


def test_what_runs_is_stopped_and_what_has_ended_is_removed_for_the_drain() -> None:
    ran = (seen(WEB), seen(WEB, 1, Phase.EXITED))
    assert planned(head(WEB), *ran) == ["Stop: the node is drained", "Remove: the node is drained"]


def test_nothing_is_started_or_fetched() -> None:
    assert planned(head(WEB)) == []
    assert planned(head(JOB)) == []


def test_a_script_under_way_is_not_cut_short_and_one_that_has_ended_stays_as_it_is() -> None:
    assert planned(head(JOB), seen(JOB)) == []
    assert planned(head(JOB, tried(JOB, last_exit=ended(0))), seen(JOB, phase=Phase.EXITED)) == []


def test_a_script_of_a_superseded_revision_ends_as_it_would_anyway() -> None:
    old = revision(1, "v1", type="script", command=["sleep 1"])
    assert planned(head(JOB), seen(old)) == ["Stop: superseded by revision 2 (v2)"]


def test_a_removal_goes_on_and_says_its_own_reason() -> None:
    assert planned(head(revision(kind="remove")), seen(revision())) == ["Stop: the app was removed by me"]


def test_an_app_that_is_held_is_left_as_it_is() -> None:
    app = head(WEB, hold=Hold("me", "debugging", None))
    assert planned(app, seen(WEB)) == []
    assert drain.wanted(app, WHO) is app


def test_the_desired_state_itself_stays_as_it_is() -> None:
    app = head(WEB)
    assert drain.wanted(app, WHO).revision.instance_hash == app.revision.instance_hash
    assert (app.revision.pkg.replicas, app.revision.wanted) == (2, 2)


@pytest.mark.parametrize(
    ("app", "observed", "expected"),
    [
        (head(WEB), (seen(WEB),), Health(0, Status.DEPLOYING, "stopping: the node is drained by api 127.0.0.1: new disk")),
        (head(WEB), (), Health(0, Status.STOPPED, "stopped: the node is drained by api 127.0.0.1: new disk")),
        (head(JOB), (), Health(0, Status.STOPPED, "not started: the node is drained by api 127.0.0.1: new disk")),
        (head(JOB, tried(JOB, last_exit=ended(0))), (), Health(100, Status.COMPLETED, "completed: exited with code 0")),
        (head(revision(kind="remove")), (seen(WEB),), Health(0, Status.REMOVING, "removing: 1 instance left")),
    ],
    ids=["stopping", "stopped", "a script that waits", "a script that is done", "being removed"],
)
def test_status_says_that_it_is_the_drain(app: Head, observed: tuple[Observed, ...], expected: Health) -> None:
    assert judged(app, *observed) == expected


def test_a_script_under_way_is_judged_as_ever() -> None:
    running = seen(JOB, started=NOW - 60)
    assert judged(head(JOB), running) == assess(head(JOB), (running,), NOW).health


def test_without_a_reason_none_is_made_up() -> None:
    assert drain.health(head(WEB), (), Health(0, Status.STOPPED, "stopped"), replace(WHO, reason="")).msg == (
        "stopped: the node is drained by api 127.0.0.1"
    )

"""What the planner decides, whole plans as text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, assert_never

from boreas_agent.model import (
    Action,
    Attempts,
    Deadline,
    Exit,
    Head,
    Health,
    Hold,
    InstanceName,
    Observed,
    Phase,
    Plan,
    Prepare,
    Probed,
    Remove,
    Rename,
    Resume,
    Revision,
    Start,
    Status,
    Stop,
)
from boreas_agent.planner import plan
from boreas_agent.records import encode
from boreas_agent.spec import instance_hash, parse_pkg, spec_hash

NOW = 1000.0
T0 = datetime(2026, 1, 1, tzinfo=UTC)


def revision(number: int = 2, version: str = "v2", kind: Any = "apply", **pkg: Any) -> Revision:
    parsed = parse_pkg({"type": "binary", "command": ["/bin/app"], **pkg})
    return Revision(
        "web", number, version, kind, 0, parsed, spec_hash(version, parsed), instance_hash(version, parsed, 0, number), T0, "me"
    )


def head(wanted: Revision, *attempts: Attempts, **more: Any) -> Head:
    return Head(wanted, Health(0, Status.PENDING, ""), T0, attempts={tried.replica: tried for tried in attempts}, **more)


def seen(of: Revision, replica: int = 0, phase: Phase = Phase.RUNNING, started: float | None = 10.0, **more: Any) -> Observed:
    name = InstanceName("web", of.revision, replica)
    return Observed(name, of.pkg.type, of.version, of.instance_hash, "ref", phase, run=1, started=started, **more)


def tried(of: Revision, replica: int = 0, **more: Any) -> Attempts:
    return Attempts(replica, of.instance_hash, **more)


def ended(code: int | None, **more: Any) -> Exit:
    return Exit("1", None, T0, code, **more)


def text(result: Plan) -> Sequence[str]:
    """One line a step, with the moment to come again at the end."""
    lines = [", ".join(_text(action) for action in step) for step in result.steps]
    return [*lines, f"wake at {result.wake_at:g}"] if result.wake_at is not None else lines


def _text(action: Action) -> str:
    match action:
        case Prepare(want):
            return f"prepare {want.name}"
        case Start(want, after, cause):
            return f"start {want.name} after run {after}: {cause}"
        case Stop(one, signal, grace, cause):
            return f"stop {one.name} by {signal} within {grace:g} s: {cause}"
        case Remove(one, cause):
            return f"remove {one.name}: {cause}"
        case Resume(one, cause):
            return f"resume {one.name}: {cause}"
        case Rename(one, cause):
            return f"rename {one.name}: {cause}"
        case _:
            assert_never(action)


V1, V2 = revision(1, "v1"), revision()


def test_a_new_app_is_prepared_and_started() -> None:
    assert text(plan(head(V2), [], NOW)) == ["prepare web.2.0", "start web.2.0 after run 0: revision 2 (v2) wants it"]


def test_what_runs_as_wanted_is_left_alone() -> None:
    assert plan(head(V2), [seen(V2)], NOW) == Plan()


def test_a_new_version_is_prepared_before_the_old_one_is_stopped_and_started_after() -> None:
    assert text(plan(head(V2), [seen(V1)], NOW)) == [
        "prepare web.2.0",
        "stop web.1.0 by SIGTERM within 10 s: superseded by revision 2 (v2)",
        "start web.2.0 after run 0: revision 2 (v2) wants it",
    ]


def test_an_ended_instance_of_an_old_version_is_removed_last() -> None:
    assert text(plan(head(V2), [seen(V1, phase=Phase.EXITED, exits=(ended(0),))], NOW)) == [
        "prepare web.2.0",
        "start web.2.0 after run 0: revision 2 (v2) wants it",
        "remove web.1.0: superseded by revision 2 (v2)",
    ]


def test_the_old_version_serves_while_preparing_the_new_one_is_in_backoff() -> None:
    waits = tried(V2, failures=1, not_before=Deadline(1004, 4, "b"), last_failure="cannot pull")
    assert text(plan(head(V2, waits), [seen(V1)], NOW)) == ["wake at 1004"]


def test_an_instance_younger_than_a_second_is_not_replaced_yet() -> None:
    assert text(plan(head(V2), [seen(V1, started=999.7)], NOW)) == ["wake at 1000.7"]


def test_a_young_instance_of_a_removed_app_is_stopped_at_once() -> None:
    gone = revision(3, "v2", kind="remove")
    assert text(plan(head(gone), [seen(V2, started=999.9)], NOW)) == [
        "stop web.2.0 by SIGTERM within 10 s: the app was removed by me",
    ]
    assert text(plan(head(gone), [seen(V2, phase=Phase.EXITED)], NOW)) == ["remove web.2.0: the app was removed by me"]


def test_an_ended_instance_is_started_again_as_the_next_run() -> None:
    killed = seen(V2, phase=Phase.EXITED, exits=(ended(None, signal="SIGKILL"),))
    after = tried(V2, failures=1, last_exit=killed.last_exit)
    assert text(plan(head(V2, after), [killed], NOW)) == ["start web.2.0 after run 1: it ended: killed by SIGKILL"]


def test_an_ended_instance_waits_for_its_backoff() -> None:
    killed = seen(V2, phase=Phase.EXITED, exits=(ended(1),))
    waits = tried(V2, failures=2, last_exit=killed.last_exit, not_before=Deadline(1002, 2, "b"))
    assert text(plan(head(V2, waits), [killed], NOW)) == ["wake at 1002"]


GIVEN_UP = Probed(f"{V2.revision}.", "", started=True, doomed="liveness probe failed 3 times: HTTP 500 from :80/")


def test_what_its_liveness_probe_has_given_up_is_stopped_and_the_rest_left_alone() -> None:
    two = revision(2, "v2", replicas=2, stop={"signal": "SIGQUIT", "grace_seconds": 3})
    doomed = tried(two, 1, probed=GIVEN_UP)
    assert text(plan(head(two, tried(two), doomed), [seen(two), seen(two, 1)], NOW)) == [
        "stop web.2.1 by SIGQUIT within 3 s: liveness probe failed 3 times: HTTP 500 from :80/",
    ]


def test_the_run_after_one_that_was_given_up_is_left_alone() -> None:
    assert plan(head(V2, tried(V2, probed=GIVEN_UP)), [seen(V2, life="next")], NOW) == Plan()


def test_a_held_app_is_not_stopped_for_its_probes() -> None:
    assert plan(head(V2, tried(V2, probed=GIVEN_UP), hold=Hold("ops", "", None)), [seen(V2)], NOW) == Plan()


def test_what_a_probe_ended_is_started_again_and_says_why() -> None:
    stopped = seen(V2, phase=Phase.EXITED, exits=(ended(0),))
    after = tried(V2, failures=1, last_exit=ended(0, unhealthy="liveness probe failed 3 times: HTTP 500"))
    assert text(plan(head(V2, after), [stopped], NOW)) == [
        "start web.2.0 after run 1: it was stopped: liveness probe failed 3 times: HTTP 500"
    ]


def test_what_a_probe_ended_has_not_completed_although_it_exited_with_0() -> None:
    once = revision(restart={"policy": "on-failure"})
    after = tried(once, failures=1, last_exit=ended(0, unhealthy="liveness probe failed"))
    assert plan(head(once, after), [seen(once, phase=Phase.EXITED, exits=(ended(0),))], NOW).steps


def test_a_completed_instance_stays_as_it_is_even_if_its_remains_are_gone() -> None:
    once = revision(restart={"policy": "on-failure"})
    done = tried(once, last_exit=ended(0))
    assert plan(head(once, done), [seen(once, phase=Phase.EXITED, exits=(ended(0),))], NOW) == Plan()
    assert plan(head(once, done), [], NOW) == Plan()


def test_a_script_of_unknown_outcome_is_not_run_again() -> None:
    once = revision(type="script", command=["true"])
    lost = tried(once, failures=1, exits=1, last_exit=ended(None, lost=True))
    assert plan(head(once, lost), [seen(once, phase=Phase.EXITED)], NOW) == Plan()


def test_a_paused_and_renamed_instance_is_repaired() -> None:
    assert text(plan(head(V2), [seen(V2, phase=Phase.PAUSED, misnamed=True)], NOW)) == [
        "rename web.2.0: it was renamed, resume web.2.0: it was paused"
    ]


def test_scaling_touches_only_the_replicas_that_are_too_few_or_too_many() -> None:
    three, one = revision(3, "v2", replicas=3), revision(3, "v2", replicas=1)
    assert text(plan(head(three), [seen(V2)], NOW)) == [
        "prepare web.3.1",
        "start web.3.1 after run 0: revision 3 (v2) wants it, start web.3.2 after run 0: revision 3 (v2) wants it",
    ]
    assert text(plan(head(one), [seen(V2), seen(V2, 1)], NOW)) == [
        "stop web.2.1 by SIGTERM within 10 s: revision 3 wants 1 replicas",
    ]


def test_no_replicas_means_stopped() -> None:
    none = revision(3, "v2", replicas=0)
    assert text(plan(head(none), [seen(V2)], NOW)) == [
        "stop web.2.0 by SIGTERM within 10 s: revision 3 wants no replica",
    ]


def test_of_two_instances_for_one_replica_the_running_one_is_kept() -> None:
    spare = replace(seen(V2, phase=Phase.CREATED), ref="other")
    assert text(plan(head(V2), [spare, seen(V2)], NOW)) == ["remove web.2.0: another instance already stands for this replica"]


def test_a_held_app_is_left_exactly_as_it_is() -> None:
    held = head(V2, hold=Hold("ops", "debugging", None))
    assert plan(held, [seen(V1), seen(V2, phase=Phase.EXITED)], NOW) == Plan()


def test_an_old_instance_is_stopped_as_its_own_revision_says() -> None:
    old = revision(1, "v1", stop={"signal": "SIGINT", "grace_seconds": 3})
    steps = text(plan(head(V2), [seen(old, record=encode(old))], NOW))
    assert "stop web.1.0 by SIGINT within 3 s: superseded by revision 2 (v2)" in steps


def test_an_instance_that_ended_at_once_is_not_replaced_more_than_once_a_second_either() -> None:
    assert text(plan(head(V2), [seen(V1, phase=Phase.EXITED, started=999.8)], NOW)) == ["wake at 1000.8"]


def test_the_start_of_an_instance_before_a_reboot_holds_up_nothing() -> None:
    before, unknown = seen(V1, phase=Phase.EXITED, started=NOW + 3600), seen(V1, phase=Phase.EXITED, started=None)
    assert text(plan(head(V2), [before], NOW)) == text(plan(head(V2), [unknown], NOW))

"""What the planner decides, whole plans as text."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, assert_never

import pytest
from msgspec.structs import replace

from boreas_agent.model import (
    Action,
    Attempts,
    Check,
    Deadline,
    Deployment,
    Exit,
    Good,
    Head,
    Health,
    Hold,
    InstanceName,
    Observed,
    Phase,
    Plan,
    PostStart,
    Prepare,
    PreStart,
    Probed,
    Reload,
    Remove,
    Rename,
    Resume,
    Revision,
    Stage,
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
        case Check(want, seconds, cause):
            return f"check {want.name} for {seconds:g} s: {cause}"
        case Start(want, after, cause):
            return f"start {want.name} after run {after}: {cause}"
        case PreStart(want, _, cause):
            return f"pre_start for {want.name}: {cause}"
        case PostStart(one, _, cause):
            return f"post_start beside {one.name}: {cause}"
        case Stop(one, signal, grace, cause, hook):
            return f"{'pre_stop and ' if hook else ''}stop {one.name} by {signal} within {grace:g} s: {cause}"
        case Reload(one, want, signals, cause):
            return f"reload {one.name} as revision {want.name.revision} by {' and '.join(signals)}: {cause}"
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


# --- rollouts ------------------------------------------------------------------------------------

START_FIRST = {"rollout": {"strategy": "start-first"}}
OLD3, NEW3 = revision(1, "v1", replicas=3), revision(replicas=3)


def names(result: Plan) -> list[str]:
    """The steps without causes."""
    return [", ".join(" ".join(_text(action).split()[:2]).rstrip(":") for action in step) for step in result.steps]


def test_replicas_are_replaced_one_at_a_time() -> None:
    old = [seen(OLD3, replica) for replica in range(3)]
    assert names(plan(head(NEW3), old, NOW)) == ["prepare web.2.0", "stop web.1.0", "start web.2.0"]


def test_the_next_one_waits_until_the_new_one_is_ready() -> None:
    half = [seen(NEW3, 0), seen(OLD3, 1), seen(OLD3, 2)]
    assert plan(head(NEW3), half, NOW) == Plan()
    assert names(plan(head(NEW3), half, NOW, ready={0})) == ["prepare web.2.1", "stop web.1.1", "start web.2.1"]


def test_max_unavailable_says_how_many_at_a_time() -> None:
    two = revision(replicas=3, rollout={"max_unavailable": 2})
    old = [seen(OLD3, replica) for replica in range(3)]
    assert names(plan(head(two), old, NOW)) == ["prepare web.2.0", "stop web.1.0, stop web.1.1", "start web.2.0, start web.2.1"]


def test_start_first_stops_the_old_one_only_for_one_that_is_ready() -> None:
    new = revision(**START_FIRST)
    assert names(plan(head(new), [seen(V1)], NOW)) == ["prepare web.2.0", "start web.2.0"]
    assert plan(head(new), [seen(V1), seen(new)], NOW) == Plan()
    assert names(plan(head(new), [seen(V1), seen(new)], NOW, ready={0})) == ["stop web.1.0"]


def test_start_first_with_replicas_has_one_more_than_wanted_and_never_fewer() -> None:
    new = revision(replicas=3, **START_FIRST)
    old = [seen(OLD3, replica) for replica in range(3)]
    assert names(plan(head(new), old, NOW)) == ["prepare web.2.0", "start web.2.0"]
    assert names(plan(head(new), [*old, seen(new, 0)], NOW, ready={0})) == ["prepare web.2.1", "stop web.1.0", "start web.2.1"]


def test_start_first_keeps_a_replica_beyond_those_wanted_until_these_are_ready() -> None:
    one = revision(**START_FIRST)
    scaled = replace(revision(1, "v1", replicas=3, **START_FIRST), instance_hash=one.instance_hash)
    left = seen(scaled, 2)
    assert names(plan(head(one), [left], NOW)) == ["prepare web.2.0", "start web.2.0"]
    assert plan(head(one), [left, seen(one)], NOW) == Plan()
    assert names(plan(head(one), [left, seen(one)], NOW, ready={0})) == ["stop web.1.2"]
    assert names(plan(head(one), [seen(scaled), seen(scaled, 1), left], NOW, ready={0})) == ["stop web.1.1, stop web.1.2"]


def test_an_old_replica_that_is_down_makes_room() -> None:
    old = [seen(OLD3, 0), seen(OLD3, 1, phase=Phase.EXITED), seen(OLD3, 2)]
    assert names(plan(head(NEW3), old, NOW)) == ["prepare web.2.1", "start web.2.1", "remove web.1.1"]


def test_fewer_replicas_of_a_new_version_stop_the_others_at_once_but_not_below_what_must_serve() -> None:
    old5 = revision(1, "v1", replicas=5)
    old = [seen(old5, replica) for replica in range(5)]
    assert names(plan(head(NEW3), old, NOW)) == ["prepare web.2.0", "stop web.1.0, stop web.1.1, stop web.1.2", "start web.2.0"]


def test_while_the_first_new_one_waits_no_old_one_is_stopped_for_another() -> None:
    waits = tried(NEW3, failures=1, not_before=Deadline(1004, 4, "b"), last_failure="cannot pull")
    old = [seen(OLD3, replica) for replica in range(3)]
    assert text(plan(head(NEW3, waits), old, NOW)) == ["wake at 1004"]


def fallen_back(wanted: Revision, good: Revision, *attempts: Attempts, image: str = "") -> Head:
    deployment = Deployment(wanted.revision, wanted.version, "apply", ((Stage.PENDING, T0), (Stage.ROLLING_BACK, T0)), "exited with code 3")
    return head(wanted, *attempts, deployment=deployment, good=Good(good, image))


def test_fallen_back_the_older_revision_is_started_anew_under_its_own_name() -> None:
    assert text(plan(fallen_back(V2, V1), [seen(V2, phase=Phase.EXITED)], NOW)) == [
        "prepare web.1.0",
        "start web.1.0 after run 0: revision 1 (v1) is restored, for revision 2 (v2) failed",
        "remove web.2.0: revision 2 (v2) failed",
    ]


def test_fallen_back_the_very_image_is_asked_for_that_ran_before() -> None:
    (start,) = [one for one in plan(fallen_back(V2, V1, image="sha256:1"), [], NOW).actions if isinstance(one, Start)]
    assert start.want.image == "sha256:1"


def test_every_later_start_is_of_the_bytes_that_the_deployment_ran() -> None:
    ran = Deployment(1, "v1", "apply", ((Stage.SUCCEEDED, T0),), image="sha256:1", digest="web@sha256:2")
    (start,) = [one for one in plan(head(V1, deployment=ran), [], NOW).actions if isinstance(one, Start)]
    assert (start.want.image, start.want.digest) == ("sha256:1", "web@sha256:2")


def test_where_no_deployment_knows_another_replica_does() -> None:
    wanted = revision(replicas=2)
    there = seen(wanted, 0, image="sha256:1", digest="web@sha256:2")
    (start,) = [one for one in plan(head(wanted), [there], NOW).actions if isinstance(one, Start)]
    assert (start.want.name.replica, start.want.image, start.want.digest) == (1, "sha256:1", "web@sha256:2")
    (first,) = [one for one in plan(head(V1), [], NOW).actions if isinstance(one, Start)]
    assert (first.want.image, first.want.digest) == ("", "")


def test_fallen_back_from_start_first_the_old_one_that_still_serves_is_kept() -> None:
    new = revision(**START_FIRST)
    assert text(plan(fallen_back(new, V1), [seen(V1), seen(new)], NOW, ready={0})) == [
        "stop web.2.0 by SIGTERM within 10 s: revision 2 (v2) failed"
    ]


def test_what_an_older_revision_of_the_same_make_has_left_is_started_again_as_what_it_is() -> None:
    scaled = replace(revision(replicas=2), instance_hash=V1.instance_hash)
    left = seen(V1, phase=Phase.EXITED, record=encode(V1), exits=(ended(1),))
    tries = Attempts(0, V1.instance_hash, failures=1, exits=1, last_exit=ended(1))
    assert text(plan(head(scaled, tries), [left], NOW)) == [
        "prepare web.2.1",
        "start web.1.0 after run 1: it exited with code 1, start web.2.1 after run 0: revision 2 (v2) wants it",
    ]


# --- files that a running instance can be told of ------------------------------------------------


def telling(number: int, content: str, version: str = "v1", **pkg: Any) -> Revision:
    return revision(number, version, files=[{"path": "conf", "content": content, "on_change": "signal"}], **pkg)


def carrying(of: Revision, replica: int = 0, **more: Any) -> Observed:
    return seen(of, replica, record=encode(of), **more)


def became(of: Revision, now: Revision, replica: int = 0, **more: Any) -> Observed:
    return replace(seen(of, replica, **more), hash=now.instance_hash, record=encode(now))


def test_what_differs_only_in_a_file_is_told_and_not_replaced() -> None:
    old, new = telling(1, "a"), telling(2, "b")
    assert text(plan(head(new), [carrying(old)], NOW)) == [
        "prepare web.2.0",
        "reload web.1.0 as revision 2 by SIGHUP: revision 2 (v1) wants it",
    ]
    assert plan(head(new), [became(old, new)], NOW, {0}) == Plan()


@pytest.mark.parametrize(
    "other", [telling(2, "b", "v2"), telling(2, "b", environment={"A": "1"}), revision(2, "v1", files=[{"path": "conf", "content": "b"}])]
)
def test_what_differs_in_more_is_replaced(other: Revision) -> None:
    assert "stop web.1.0 by SIGTERM within 10 s" in text(plan(head(other), [carrying(telling(1, "a"))], NOW))[1]


def test_what_does_not_run_or_cannot_be_read_is_replaced() -> None:
    old, new = telling(1, "a"), telling(2, "b")
    assert "prepare web.2.0" in text(plan(head(new), [carrying(old, phase=Phase.EXITED)], NOW))
    assert "prepare web.2.0" in text(plan(head(new), [carrying(old, phase=Phase.PAUSED)], NOW))
    assert "prepare web.2.0" in text(plan(head(new), [seen(old, record="{}")], NOW))


def test_replicas_are_told_one_by_one_and_the_next_when_the_last_is_ready() -> None:
    old, new = telling(1, "a", replicas=3), telling(2, "b", replicas=3)
    told, rest = became(old, new), [carrying(old, 1), carrying(old, 2)]
    first, second = (f"reload web.1.{replica} as revision 2 by SIGHUP: revision 2 (v1) wants it" for replica in (0, 1))
    assert text(plan(head(new), [carrying(old), *rest], NOW)) == ["prepare web.2.0", first]
    assert plan(head(new), [told, *rest], NOW) == Plan()
    assert text(plan(head(new), [told, *rest], NOW, {0})) == ["prepare web.2.1", second]


def test_as_many_are_told_at_once_as_may_be_missing() -> None:
    two = {"replicas": 3, "rollout": {"max_unavailable": 2}}
    old, new = telling(1, "a", **two), telling(2, "b", **two)
    _, step = plan(head(new), [carrying(old, replica) for replica in range(3)], NOW).steps
    assert [action.seen.name.replica for action in step if isinstance(action, Reload)] == [0, 1]


def test_each_signal_is_sent_once_and_only_those_of_files_that_differ() -> None:
    def three(number: int, *contents: str) -> Revision:
        signals = ("SIGHUP", "SIGUSR1", "SIGHUP")
        files = [
            {"path": str(index), "content": content, "on_change": "signal", "signal": signal}
            for index, (content, signal) in enumerate(zip(contents, signals, strict=True))
        ]
        return revision(number, "v1", files=files)

    def told(new: Revision) -> Any:
        _, (action,) = plan(head(new), [carrying(three(1, "a", "b", "c"))], NOW).steps
        assert isinstance(action, Reload)
        return action.signals

    assert told(three(2, "x", "b", "y")) == ("SIGHUP",)
    assert told(three(2, "a", "x", "c")) == ("SIGUSR1",)
    assert told(three(2, "x", "x", "c")) == ("SIGHUP", "SIGUSR1")


def test_a_young_instance_is_not_told_yet_and_one_whose_files_cannot_be_read_later() -> None:
    old, new = telling(1, "a"), telling(2, "b")
    assert text(plan(head(new), [carrying(old, started=999.7)], NOW)) == ["wake at 1000.7"]
    waits = tried(new, failures=1, not_before=Deadline(1004, 4, "b"), last_failure="cannot read")
    assert text(plan(head(new, waits), [carrying(old)], NOW)) == ["wake at 1004"]


def test_what_was_told_and_died_of_it_makes_room_for_the_older_revision_of_its_name() -> None:
    old, new = telling(1, "a"), telling(2, "b")
    back = head(new, deployment=Deployment(2, "v1", "apply", ((Stage.PENDING, T0), (Stage.ROLLING_BACK, T0)), "it died"), good=Good(old))
    why = "revision 1 (v1) is restored, for revision 2 (v1) failed"
    assert text(plan(back, [became(old, new, phase=Phase.EXITED)], NOW)) == ["prepare web.1.0", f"start web.1.0 after run 0: {why}"]
    assert text(plan(back, [became(old, new)], NOW)) == ["prepare web.1.0", f"reload web.1.0 as revision 1 by SIGHUP: {why}"]


def test_what_was_told_starts_again_as_what_it_has_become() -> None:
    old, new = telling(1, "a"), telling(2, "b")
    ((action,),) = plan(head(new), [became(old, new, phase=Phase.EXITED)], NOW).steps
    assert isinstance(action, Start)
    assert (action.want.name, action.want.hash, action.want.pkg) == (InstanceName("web", 1, 0), new.instance_hash, new.pkg)


def test_what_was_half_told_is_told_again_whatever_is_wanted_by_then() -> None:
    old, new = telling(1, "a"), telling(2, "b")
    half = replace(carrying(old), hash="")
    for wanted in (old, new):
        assert text(plan(head(wanted), [half], NOW))[1].startswith(f"reload web.1.0 as revision {wanted.revision} by SIGHUP")


def test_a_file_of_the_node_may_be_another_one_though_nobody_has_changed_the_spec() -> None:
    def of(number: int, content: str) -> Revision:
        key = {"path": "key", "content_from": "/etc/key", "on_change": "signal", "signal": "SIGUSR1"}
        return revision(number, "v1", files=[{"path": "conf", "content": content, "on_change": "signal"}, key])

    _, (action,) = plan(head(of(2, "b")), [carrying(of(1, "a"))], NOW).steps
    assert isinstance(action, Reload)
    assert action.signals == ("SIGHUP", "SIGUSR1")


def test_what_can_be_told_takes_its_place_beside_what_is_replaced() -> None:
    def of(number: int, version: str, content: str) -> Revision:
        return telling(number, content, version, replicas=2)

    first, second, third = of(1, "v1", "a"), of(2, "v2", "a"), of(3, "v2", "b")
    assert text(plan(head(third), [carrying(second, 0), carrying(first, 1)], NOW)) == [
        "prepare web.3.1",
        "stop web.1.1 by SIGTERM within 10 s: superseded by revision 3 (v2)",
        "start web.3.1 after run 0: revision 3 (v2) wants it",
    ]
    there = [carrying(second, 0), carrying(third, 1)]
    assert plan(head(third), there, NOW) == Plan()
    assert text(plan(head(third), there, NOW, {1})) == [
        "prepare web.3.0",
        "reload web.2.0 as revision 3 by SIGHUP: revision 3 (v2) wants it",
    ]


def test_a_paused_one_is_replaced_before_another_takes_its_place() -> None:
    old, new = telling(1, "a", replicas=2), telling(2, "b", replicas=2)
    lines = text(plan(head(new), [carrying(old, 0, phase=Phase.PAUSED), carrying(old, 1)], NOW))
    assert lines.index("stop web.1.0 by SIGTERM within 10 s: superseded by revision 2 (v1)") < lines.index(
        "start web.2.0 after run 0: revision 2 (v1) wants it"
    )


def test_who_has_the_name_that_a_start_needs_leaves_first() -> None:
    more = {"rollout": {"strategy": "start-first"}}
    old, new = telling(1, "a", **more), telling(2, "b", **more)
    back = head(new, deployment=Deployment(2, "v1", "apply", ((Stage.PENDING, T0), (Stage.ROLLING_BACK, T0)), "it died"), good=Good(old))
    lines = text(plan(back, [became(old, new, phase=Phase.PAUSED)], NOW))
    assert [line.partition(" ")[0] for line in lines] == ["prepare", "stop", "start"]


HOOKED: dict[str, Any] = {"hooks": {"post_start": {"exec": {"command": ["/bin/true"]}}}}


def test_one_whose_post_start_hook_has_not_succeeded_is_replaced() -> None:
    old, new = telling(1, "a", **HOOKED), telling(2, "b", **HOOKED)
    assert text(plan(head(new), [carrying(old)], NOW))[1].startswith("stop web.1.0")
    assert text(plan(head(new, hooked={"1.0:": ""}), [carrying(old)], NOW))[1].startswith("reload web.1.0")


def test_no_post_start_hook_is_due_beside_what_was_told() -> None:
    old, new = telling(1, "a"), telling(2, "b", **HOOKED)
    assert plan(head(new), [became(old, new, reloaded=900.0)], NOW, {0}) == Plan()

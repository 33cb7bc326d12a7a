"""Hooks as decisions: what is asked for, when each is due, and what comes of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from msgspec.structs import replace

from boreas_agent import drain, hooks, probing
from boreas_agent.backoff import Moment
from boreas_agent.health import assess
from boreas_agent.ledger import enter
from boreas_agent.model import (
    Deadline,
    Deployment,
    Drained,
    Executed,
    Exit,
    Good,
    Head,
    Observed,
    Phase,
    PostStart,
    PreStart,
    Revision,
    Stage,
    Stop,
)
from boreas_agent.planner import plan
from boreas_agent.records import encode
from boreas_agent.rehearsal import rehearse
from boreas_agent.spec import instance_hash
from tests.unit.test_planner import NOW, T0, V1, head, revision, seen, text, tried
from tests.unit.test_spec import BINARY, DOCKER, SCRIPT, faults, submitted

ALL: dict[str, Any] = {kind: {"exec": {"command": [kind]}} for kind in ("pre_start", "post_start", "pre_stop")}
OLD, NEW = revision(1, "v1", hooks=ALL), revision(2, "v2", hooks=ALL)
PRE, POST = {"pre_start": ALL["pre_start"]}, {"post_start": ALL["post_start"]}
WHY = "post_start hook failed: the command exited with code 1"


def deploying(of: Revision, *stages: Stage, pre_started: bool = False, good: Revision | None = None, **more: Any) -> Head:
    way = tuple((stage, T0) for stage in (Stage.PENDING, *stages))
    deployment = Deployment(of.revision, of.version, of.kind, way, "it failed", pre_started=pre_started)
    return head(of, deployment=deployment, good=Good(good) if good else None, **more)


def there(of: Revision, **more: Any) -> Observed:
    return seen(of, record=encode(of), **{"life": "1", **more})


def done(*of: Observed, words: str = "") -> dict[str, Any]:
    return {"hooked": {hooks.key_of(one): words for one in of}}


# --- what is asked for -----------------------------------------------------------------------------


@pytest.mark.parametrize("base", [DOCKER, BINARY])
def test_containers_and_programs_may_have_hooks_with_half_a_minute_each(base: dict[str, Any]) -> None:
    asked = submitted(base, hooks={**ALL, "pre_stop": {"exec": {"command": ["/bye"]}, "timeout_seconds": 5}}).pkg.hooks
    assert asked.pre_start is not None
    assert asked.pre_stop is not None
    assert (asked.pre_start.exec.command, asked.pre_start.timeout_seconds) == (("pre_start",), 30)
    assert asked.pre_stop.timeout_seconds == 5


def test_a_change_of_the_hooks_is_another_request_and_replaces_nothing() -> None:
    one, other = submitted(BINARY), submitted(BINARY, hooks=ALL)
    assert one.spec_hash != other.spec_hash
    assert instance_hash("v1", one.pkg, 1, 1) == instance_hash("v1", other.pkg, 1, 2)


def test_empty_hooks_are_none() -> None:
    assert submitted(BINARY, hooks={"pre_start": {}, "post_start": None}).spec_hash == submitted(BINARY).spec_hash


@pytest.mark.parametrize(
    ("given", "field", "message"),
    [
        ({"pre_begin": ALL["pre_start"]}, ".pre_begin", "unknown field"),
        ({"pre_start": {"http": {"port": 80}, "exec": {"command": ["x"]}}}, ".pre_start.http", "unknown field"),
        ({"pre_start": {"timeout_seconds": 3}}, ".pre_start.exec", "is required"),
        ({"pre_start": ["migrate"]}, ".pre_start", "must be an object"),
        ({"pre_stop": {"exec": {"command": [""]}}}, ".pre_stop.exec.command[0]", "the program must not be empty"),
        ({"post_start": {"exec": {"command": ["x"]}, "timeout_seconds": 0}}, ".post_start.timeout_seconds", "must be greater than"),
        ({"post_start": {"exec": {"command": ["x"]}, "timeout_seconds": 3601}}, ".post_start.timeout_seconds", "must be less than"),
    ],
)
def test_what_is_wrong_with_a_hook_is_named(given: object, field: str, message: str) -> None:
    found = faults({"app": "web", "version": "v1", "pkg": BINARY | {"hooks": given}})
    assert list(found) == [f"pkg.hooks{field}"]
    assert message in found[f"pkg.hooks{field}"]


def test_a_script_has_no_hooks_and_is_told_what_to_do_instead() -> None:
    assert faults({"app": "web", "version": "v1", "pkg": SCRIPT | {"hooks": PRE}}) == {
        "pkg.hooks": "a script has no hooks; what is to be done before or after it belongs into the script itself"
    }


# --- pre_start ---------------------------------------------------------------------------------------


def test_pre_start_comes_after_everything_is_here_and_before_the_old_one_is_touched() -> None:
    assert text(plan(deploying(NEW), [there(V1)], NOW)) == [
        "prepare web.2.0",
        "pre_start for web.2.0: revision 2 (v2) wants it",
        "stop web.1.0 by SIGTERM within 10 s: superseded by revision 2 (v2)",
        "start web.2.0 after run 0: revision 2 (v2) wants it",
    ]


@pytest.mark.parametrize(
    ("what", "of", "observed"),
    [
        ("it has succeeded", deploying(NEW, Stage.STARTING, pre_started=True), []),
        ("its deployment has succeeded", deploying(NEW, Stage.SUCCEEDED), []),
        ("an older revision is restored", deploying(NEW, Stage.FAILED, Stage.ROLLING_BACK, good=OLD), []),
        ("it was adopted", head(NEW), []),
        ("nothing is made anew", deploying(NEW), [there(NEW, phase=Phase.EXITED)]),
        ("it has none", deploying(revision()), []),
        ("it waits to be tried again", deploying(NEW, Stage.FAILED), None),
    ],
)
def test_pre_start_is_not_due_where(what: str, of: Head, observed: Sequence[Observed] | None) -> None:
    if observed is None:
        of, observed = replace(of, attempts={0: tried(NEW, failures=1, not_before=Deadline(1004, 4, "b"), last_failure="hook")}), []
    assert not any(isinstance(action, PreStart) for action in plan(of, observed, NOW).actions), what


def test_pre_start_is_tried_again_where_the_deployment_has_failed_without_anything_to_go_back_to() -> None:
    assert any(isinstance(action, PreStart) for action in plan(deploying(NEW, Stage.FAILED), [], NOW).actions)


def test_a_drained_node_runs_no_pre_start() -> None:
    drained = Drained("me", "", T0)
    of = drain.wanted(deploying(NEW), drained)
    assert drain.plan(of, plan(of, [], NOW), drained).actions == ()


# --- post_start --------------------------------------------------------------------------------------


def test_post_start_is_due_beside_what_runs_until_it_is_on_record_for_that_run() -> None:
    one = there(NEW)
    assert text(plan(head(NEW), [one], NOW)) == ["post_start beside web.2.0: it was started"]
    assert plan(head(NEW, **done(one)), [one], NOW).actions == ()
    assert plan(head(NEW, **done(one)), [replace(one, life="2")], NOW).actions != ()
    assert plan(head(NEW), [replace(one, phase=Phase.EXITED)], NOW).actions[0].cause != "it was started"


def test_a_post_start_that_failed_has_the_instance_stopped_and_started_again() -> None:
    one = there(NEW)
    assert text(plan(head(NEW, **done(one, words=WHY)), [one], NOW)) == [
        f"pre_stop and stop web.2.0 by SIGTERM within 10 s: {WHY}",
    ]


def test_what_was_made_without_a_post_start_stays_complete_without_it() -> None:
    later = replace(revision(3, "v1", hooks=ALL), instance_hash=V1.instance_hash)
    assert plan(head(later), [there(V1)], NOW).actions == ()
    changed = replace(revision(3, "v1", hooks=ALL), instance_hash=OLD.instance_hash)
    assert [type(action) for action in plan(head(changed), [there(OLD)], NOW).actions] == [PostStart]


def test_before_its_post_start_has_succeeded_an_instance_is_not_there_yet() -> None:
    one, well = there(NEW), replace(head(NEW), proven=NEW.instance_hash)
    judged = assess(well, [one], NOW)
    assert (judged.health.level, judged.health.msg, judged.ready) == (20, "starting: its post_start hook is due", frozenset())
    judged = assess(replace(well, **done(one, words=WHY)), [one], NOW)
    assert (judged.health.level, judged.health.msg, judged.ready) == (5, f"{WHY}; restarting", frozenset())
    assert assess(replace(well, **done(one)), [one], NOW).health.level == 100


def test_nothing_is_probed_before_its_post_start_has_succeeded() -> None:
    of = revision(2, "v2", hooks=POST, health={"liveness": {"tcp": {"port": 1}}})
    one = there(of)
    assert probing.targets(head(of), [one]) == {}
    assert probing.targets(head(of, **done(one)), [one]) == {0: one}


def test_the_end_of_a_run_whose_post_start_failed_is_a_failure_with_the_hook_as_its_cause() -> None:
    over = there(NEW, phase=Phase.EXITED, exits=(Exit("1", None, T0, 0, seconds=600.0),))
    account = enter(head(NEW, tried(NEW, started=True), **done(over, words=WHY)), [over], Moment(NOW, "b", 0.0), T0)
    attempts, ((_, ended),) = account.attempts[0], account.exits
    assert (ended.unhealthy, ended.reason, ended.ok) == (WHY, f"stopped: {WHY}", False)
    assert attempts.failures == 1
    assert attempts.not_before is not None


def test_what_is_on_record_lasts_as_long_as_the_run_can_be_seen() -> None:
    one, two = there(OLD), there(NEW, replica=1)
    known = {**done(one)["hooked"], **done(two, words=WHY)["hooked"], "1.7:9": ""}
    assert set(hooks.still_seen(known, [one, two])) == {"1.0:1", "2.1:1"}
    over = replace(two, phase=Phase.EXITED, life="", exits=(Exit("1", None, T0, 1),))
    assert hooks.still_seen(known, [over]) == {"2.1:1": WHY}


# --- pre_stop ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "of", "observed", "hook"),
    [
        ("superseded: its own", head(revision()), there(OLD), True),
        ("superseded by one that has a hook, without one of its own", head(NEW), there(V1), False),
        ("scaled down", head(replace(revision(2, "v2", replicas=0, hooks=ALL), instance_hash=OLD.instance_hash)), there(OLD), True),
        ("removed", head(revision(2, "v1", kind="remove", hooks=ALL)), there(OLD), True),
        ("paused", head(revision()), there(OLD, phase=Phase.PAUSED), False),
    ],
)
def test_pre_stop_goes_with_every_stop(what: str, of: Head, observed: Observed, hook: bool) -> None:
    (stop,) = [action for action in plan(of, [observed], NOW).actions if isinstance(action, Stop)]
    assert (stop.pre_stop is not None) == hook, what


# --- all together ------------------------------------------------------------------------------------


def test_a_plan_to_its_end_has_every_hook_in_its_place() -> None:
    rolled = revision(2, "v2", replicas=2, hooks=ALL, rollout={"strategy": "start-first"})
    old = revision(1, "v1", replicas=2, hooks=ALL)
    strides = rehearse(deploying(rolled), [there(old), replace(there(old, replica=1), ref="other")], NOW)
    assert [f"{type(one).__name__} {one.want.name if hasattr(one, 'want') else one.seen.name}" for stride in strides for one in stride] == [
        "Prepare web.2.0",
        "PreStart web.2.0",
        "Start web.2.0",
        "PostStart web.2.0",
        "Prepare web.2.1",
        "Stop web.1.0",
        "Start web.2.1",
        "PostStart web.2.1",
        "Remove web.1.0",
        "Stop web.1.1",
        "Remove web.1.1",
    ]


@pytest.mark.parametrize(
    ("executed", "expected"),
    [
        (Executed(0, "fine"), ""),
        (Executed(3, ""), "the command exited with code 3"),
        (Executed(3, " no\n such\x1b table "), "the command exited with code 3: no such� table"),
        (Executed(None, "half", "the command did not end within 2 s"), "the command did not end within 2 s: half"),
        (Executed(1, "x" * 9000 + "the end"), "the command exited with code 1: " + "x" * 493 + "the end"),
    ],
)
def test_how_a_hook_went_is_said_in_one_bounded_line(executed: Executed, expected: str) -> None:
    assert executed.why_not(500) == expected

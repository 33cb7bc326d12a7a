"""The state machine of a deployment, step by step."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from boreas_agent import rollout
from boreas_agent.health import assess
from boreas_agent.model import Attempts, Deployment, Good, Head, Health, Observed, Phase, Revision, Stage, Status
from boreas_agent.spec import spec_hash
from boreas_agent.store import codec
from tests.unit.test_planner import NOW, T0, V1, V2, ended, head, revision, seen, tried

YOUNG = NOW - 3
SCRIPT = revision(type="script", command=["true"])


def deploying(wanted: Revision, *stages: Stage, good: Revision | None = None, attempts: tuple[Attempts, ...] = (), **more: Any) -> Head:
    """A head whose deployment has been through ``stages``."""
    been = tuple((stage, T0 + timedelta(seconds=index)) for index, stage in enumerate(stages or (Stage.PENDING,)))
    deployment = Deployment(wanted.revision, wanted.version, "apply", been, **more)
    return head(wanted, *attempts, deployment=deployment, good=Good(good) if good else None)


def step(of: Head, observed: list[Observed], elapsed: float = 1.0, failures: tuple[str, ...] = ()) -> Deployment | None:
    looked = rollout.look(of, observed, assess(of, observed, NOW), failures)
    done = rollout.advance(of, looked, elapsed, T0 + timedelta(minutes=1))
    return done.deployment if done else None


def stages(of: Head, observed: list[Observed], elapsed: float = 1.0, failures: tuple[str, ...] = ()) -> str:
    """What is new in the stages, and why."""
    after = step(of, observed, elapsed, failures)
    assert after is not None
    assert of.deployment is not None
    new = " ".join(stage for stage, _ in after.stages[len(of.deployment.stages) :])
    return f"{new}: {after.reason}" if after.reason else new


CRASHED = tried(V2, failures=3, exits=3, last_exit=ended(3))


@pytest.mark.parametrize(
    ("what", "of", "observed", "failures", "expected"),
    [
        ("nothing there yet", deploying(V2), [], (), ""),
        ("running, too short", deploying(V2), [seen(V2, started=YOUNG)], (), "verifying"),
        ("long enough", deploying(V2), [seen(V2)], (), "succeeded: it was healthy for 10 s"),
        ("long enough, the old one still there", deploying(V2), [seen(V2), seen(V1)], (), "draining"),
        ("one crash", deploying(V2, good=V1, attempts=(tried(V2, failures=1, exits=1, last_exit=ended(3)),)), [], (), ""),
        (
            "crash loop with something to go back to",
            deploying(V2, good=V1, attempts=(CRASHED,)),
            [],
            (),
            "failed rolling-back: crash-looping: exited with code 3, 3 times in a row",
        ),
        (
            "crash loop without",
            deploying(V2, attempts=(CRASHED,)),
            [],
            (),
            "failed: crash-looping: exited with code 3, 3 times in a row",
        ),
        (
            "missing image",
            deploying(V2, good=V1),
            [seen(V1)],
            ("cannot pull x: not found",),
            "failed rolling-back: cannot pull x: not found",
        ),
        (
            "a program that is not there",
            deploying(V2, good=V1, attempts=(tried(V2, failures=1, exits=1, last_exit=ended(None, reason="cannot execute /x")),)),
            [],
            (),
            "failed rolling-back: cannot execute /x",
        ),
        (
            "an end that nobody saw is no reason",
            deploying(V2, good=V1, attempts=(tried(V2, failures=1, exits=1, last_exit=ended(None, reason="unknown", lost=True)),)),
            [],
            (),
            "",
        ),
        ("deadline", deploying(V2, good=V1, spent=299.0), [], (), "failed rolling-back: not healthy within 300 s: starting"),
        ("at the deadline it only has to last", deploying(V2, good=V1, spent=299.0), [seen(V2, started=YOUNG)], (), "verifying"),
        (
            "to the same spec nobody goes back",
            deploying(V2, good=replace(V2, revision=1), attempts=(CRASHED,)),
            [],
            (),
            "failed: crash-looping",
        ),
        (
            "switched off",
            deploying(revision(rollout={"auto_rollback": False}), good=V1, attempts=(replace(CRASHED, hash=V2.instance_hash),)),
            [],
            (),
            "failed: crash-looping",
        ),
        (
            "after all",
            deploying(V2, Stage.PENDING, Stage.FAILED, reason="x"),
            [seen(V2)],
            (),
            "succeeded: healthy after all; it had failed: x",
        ),
        ("stopping", deploying(revision(replicas=0)), [seen(V1)], (), "draining"),
        ("stopped", deploying(revision(replicas=0)), [], (), "succeeded: stopped, as it should be"),
        ("removing never fails", deploying(revision(kind="remove"), spent=1e6), [seen(V1)], (), "draining"),
        ("a script that runs has all the time", deploying(SCRIPT, spent=1e6), [seen(SCRIPT)], (), "verifying"),
        (
            "a script that is done",
            deploying(SCRIPT, attempts=(tried(SCRIPT, last_exit=ended(0)),)),
            [],
            (),
            "succeeded: completed: exited with code 0",
        ),
        (
            "a script is given up, and not rolled back",
            deploying(SCRIPT, good=V1, attempts=(tried(SCRIPT, failures=3, exits=3, last_exit=ended(3)),)),
            [],
            (),
            "failed: exited with code 3",
        ),
        (
            "back, and running",
            deploying(V2, Stage.PENDING, Stage.FAILED, Stage.ROLLING_BACK, good=V1, reason="x"),
            [seen(V1)],
            (),
            "rolled-back: x",
        ),
        (
            "back, and the bad one not gone yet",
            deploying(V2, Stage.PENDING, Stage.FAILED, Stage.ROLLING_BACK, good=V1, reason="x"),
            [seen(V1), seen(V2)],
            (),
            ": x",
        ),
        (
            "not back by the deadline",
            deploying(V2, Stage.PENDING, Stage.FAILED, Stage.ROLLING_BACK, good=V1, reason="x", spent=299.0),
            [],
            (),
            "rollback-failed: x; revision 1 (v1) did not come back: not healthy within 300 s: starting",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) and value.isascii() and len(value) < 50 else "",
)
def test_one_step(what: str, of: Head, observed: list[Observed], failures: tuple[str, ...], expected: str) -> None:
    if expected.endswith("crash-looping"):
        assert stages(of, observed, failures=failures).startswith(expected)
        return
    assert stages(of, observed, failures=failures) == expected


ENDED = [Stage.ROLLED_BACK, Stage.ROLLBACK_FAILED]


@pytest.mark.parametrize("end", ENDED)
def test_what_has_ended_stays_so(end: Stage) -> None:
    assert step(deploying(V2, Stage.PENDING, Stage.FAILED, Stage.ROLLING_BACK, end, good=V1), [seen(V1)], 1e6) is None


def test_nothing_moves_while_people_are_at_work_on_it() -> None:
    held = replace(deploying(V2, good=V1, spent=1e6), hold=object())  # type: ignore[arg-type]
    assert step(held, []) is None


def test_a_replica_more_that_is_ready_begins_the_deadline_anew() -> None:
    two = revision(replicas=2)
    after = step(deploying(two, spent=250.0), [seen(two)], 20)
    assert after is not None
    assert (after.spent, after.ready) == (0.0, 1)
    again = step(deploying(two, spent=250.0, ready=1), [seen(two)], 20)
    assert again is not None
    assert again.spent == 270.0


WATCHED = (Stage.PENDING, Stage.VERIFYING, Stage.SUCCEEDED)
WELL, ILL = Health(100, Status.RUNNING, "Running"), Health(5, Status.DEPLOYING, "exited")


def watched(**more: Any) -> Head:
    return replace(deploying(V2, *WATCHED, good=V1, **more), health=WELL, proven=V2.instance_hash)


def test_a_watch_ends_after_its_time_and_not_before() -> None:
    still, over = step(watched(spent=0.0), [seen(V2)], 30), step(watched(spent=0.0), [seen(V2)], 60)
    assert (still and still.spent, over and over.spent) == (0.0, 60.0)
    assert step(watched(spent=60.0), [], 1e6) is None


def test_below_the_line_for_a_while_in_a_row_it_has_fallen_over() -> None:
    fell = step(watched(), [], 30)  # the time before it fell does not count
    assert fell is not None
    assert (fell.stage, fell.unwell) == (Stage.SUCCEEDED, 0.0)
    ill = replace(watched(unwell=0.0), health=ILL)
    longer = step(ill, [], 9)
    assert longer is not None
    assert (longer.stage, longer.unwell) == (Stage.SUCCEEDED, 9.0)
    assert stages(ill, [], 10) == "rolling-back: it fell over within 60 s of its success: starting"
    well = step(replace(watched(unwell=9.0), health=ILL), [seen(V2)], 5)
    assert well is not None
    assert well.unwell is None


def test_a_crash_loop_while_it_is_watched_needs_no_patience() -> None:
    looping = replace(watched(), attempts={0: CRASHED})
    assert stages(looping, [], 0.1).startswith("rolling-back: it fell over within 60 s of its success: crash-looping")


def test_what_a_new_revision_can_go_back_to() -> None:
    healthy = head(V1, proven=V1.instance_hash)
    assert rollout.successor_good(healthy, V2) == Good(V1)
    assert rollout.successor_good(head(V1), V2) is None  # never was
    assert rollout.successor_good(replace(deploying(V2, good=V1), proven=""), revision(3, "v3")) == Good(V1)
    assert rollout.successor_good(healthy, revision(2, "v2", kind="remove")) is None
    assert rollout.successor_good(head(SCRIPT, proven=SCRIPT.instance_hash), V2) is None
    stopped = revision(1, "v1", replicas=0)
    assert rollout.successor_good(head(stopped, proven=stopped.instance_hash, good=Good(V1)), V2) == Good(V1)


def test_the_image_that_ran_is_remembered_with_the_revision() -> None:
    docker = revision(1, "v1", type="docker", command=[], image="web:1")
    after = step(deploying(docker), [seen(docker, image="sha256:abc")])
    assert after is not None
    healthy = head(docker, proven=docker.instance_hash, deployment=after)
    assert rollout.successor_good(healthy, V2) == Good(docker, "sha256:abc")


def test_the_bytes_of_the_first_instance_are_on_record_before_it_is_healthy() -> None:
    docker = revision(1, "v1", type="docker", command=[], image="web:1", replicas=2)
    first = seen(docker, image="sha256:abc", digest="web@sha256:1", started=NOW)
    after = step(deploying(docker), [first])
    assert after is not None
    assert (after.outcome, after.image, after.digest) == (None, "sha256:abc", "web@sha256:1")
    assert head(docker, deployment=after).ran == Good(docker, "sha256:abc", "web@sha256:1")


def test_how_a_deployment_ends_when_another_revision_comes() -> None:
    under_way = rollout.supersede(deploying(V2), revision(3, "v3"), T0)
    assert under_way is not None
    assert (under_way.stage, under_way.reason) == (Stage.SUPERSEDED, "superseded by revision 3 (v3) before it was healthy")
    runs_on = rollout.supersede(replace(deploying(SCRIPT, Stage.PENDING, Stage.VERIFYING), proven=SCRIPT.instance_hash), V2, T0)
    assert runs_on is not None
    assert runs_on.stage is Stage.SUCCEEDED
    assert rollout.supersede(watched(), revision(3, "v3"), T0) is None


def test_how_long_it_may_still_take() -> None:
    assert rollout.seconds_left(deploying(V2, spent=100.0), 20.0) == 180.0
    assert rollout.seconds_left(deploying(V2, spent=400.0)) == 0.0
    assert rollout.seconds_left(deploying(revision(replicas=0))) is None
    assert rollout.seconds_left(watched()) is None
    assert rollout.seconds_left(replace(watched(unwell=4.0), health=ILL)) == 6.0
    assert rollout.seconds_left(head(V2)) is None


states = st.lists(st.sampled_from(["none", "young", "old", "exited", "beside"]), min_size=1, max_size=30)


@given(states, st.booleans(), st.integers(0, 2))
def test_stages_only_go_forwards_and_no_deployment_falls_back_twice(seen_as: list[str], with_good: bool, extra: int) -> None:
    """Whatever is seen in whatever order, the way is one of the drawing in the module's docstring."""
    now = deploying(V2, good=V1 if with_good else None)
    for index, what in enumerate(seen_as):
        running = now.running
        there = {
            "none": [],
            "young": [seen(running, started=YOUNG)],
            "old": [seen(running)],
            "exited": [seen(running, phase=Phase.EXITED)],
            "beside": [seen(running), seen(V1 if running is V2 else V2)],
        }[what]
        count = index * extra if what == "exited" else 0
        counted = {0: Attempts(0, running.instance_hash, failures=count, exits=count, last_exit=ended(1))} if count else {}
        now = replace(now, attempts=counted)
        judged = assess(now, there, NOW)
        done = rollout.advance(now, rollout.look(now, there, judged, ()), 40.0, T0)
        if done is not None:
            now = replace(now, deployment=done.deployment, health=judged.health, proven=judged.proven)
    assert now.deployment is not None
    way = [stage for stage, _ in now.deployment.stages]
    assert len(way) == len(set(way)) or (way.count(Stage.SUCCEEDED) == 1 and way.count(Stage.FAILED) == 1), way
    assert way.count(Stage.ROLLING_BACK) <= 1
    assert (Stage.ROLLING_BACK in way) <= with_good
    assert now.fallback is None or now.health.level < 80


@given(st.floats(0, 1e6), st.none() | st.floats(0, 1e3), st.text(max_size=20), st.integers(0, 5))
def test_a_deployment_is_read_back_as_it_was_written(spent: float, unwell: float | None, reason: str, ready: int) -> None:
    of = deploying(V2, *WATCHED, reason=reason, spent=spent, unwell=unwell, ready=ready, image="sha256:1", good=V1, pre_started=ready > 0)
    of = replace(of, hooked={"2.0:1": reason}, deployment=replace(of.deployment, digest="x@sha256:2"))
    row = codec.head_row(of)
    names = (
        "status",
        "level",
        "msg",
        "updated",
        "proven",
        "attempts",
        "hold",
        "unknown_since",
        "homes",
        "deployment",
        "good",
        "good_image",
        "hooked",
        "good_digest",
    )
    stored = dict(zip(names, row[3:], strict=True))
    record, good = codec.revision_row(V2)[5], codec.revision_row(V1)[5]
    picked = [stored[name] for name in names if name != "good"]
    read = codec.head((*picked, record, good))  # type: ignore[arg-type]
    assert (read.deployment, read.good, read.hooked) == (of.deployment, of.good, of.hooked)


def test_a_spec_of_the_same_words_is_the_same_target() -> None:
    assert spec_hash("v1", V1.pkg) == V1.spec_hash
    assert rollout.target(deploying(V2, good=V1)) == Good(V1)
    assert rollout.target(deploying(V2)) is None

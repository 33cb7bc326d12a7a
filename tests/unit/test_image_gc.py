"""Which images may go."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from boreas_agent import image_gc
from boreas_agent.image_gc import Policy
from boreas_agent.model import Deployment, Good, Head, Health, PulledImage, Revision, Stage, Status
from boreas_agent.spec import instance_hash, parse_pkg, spec_hash

T0 = datetime(2026, 1, 1, tzinfo=UTC)
POLICY = Policy(min_age=120, max_age=3600, high_percent=85, low_percent=80)


def pulled(name: str, idle: float = 0.0, at: int = 0) -> PulledImage:
    return PulledImage(name, (f"x/{name}:1",), T0 + timedelta(seconds=at), idle)


def revision(number: int, image: str, kind: Any = "apply", **pkg: Any) -> Revision:
    made = parse_pkg({"type": "docker", "image": image} | pkg)
    return Revision("web", number, "v", kind, number, made, spec_hash("v", made), instance_hash("v", made, number, number), T0, "test")


def head(wanted: Revision, *, ran: str = "", good: Good | None = None, stage: Stage = Stage.SUCCEEDED) -> Head:
    deployment = Deployment(wanted.revision, "v", "apply", ((Stage.PENDING, T0), (stage, T0)), image=ran)
    return Head(wanted, Health(100, Status.RUNNING, ""), T0, deployment=deployment, good=good)


def test_what_an_app_runs_and_what_it_may_come_back_to_is_needed() -> None:
    of = head(revision(2, "new:1"), ran="id-new", good=Good(revision(1, "old:1"), "id-old"))
    assert image_gc.needed([of]) == ({"id-new", "id-old"}, {"new:1", "old:1"})
    back = replace(of, deployment=replace(of.deployment, stages=((Stage.ROLLED_BACK, T0),)))  # type: ignore[type-var]
    assert image_gc.needed([back]) == ({"id-new", "id-old"}, {"new:1", "old:1"})


def test_a_candidate_that_has_not_run_yet_is_needed_by_name_and_what_is_being_removed_is_not() -> None:
    assert image_gc.needed([head(revision(1, "new:1"), stage=Stage.FETCHING)]) == (frozenset(), {"new:1"})
    assert image_gc.needed([head(revision(2, "old:1", "remove"), ran="id-old")]) == (frozenset(), frozenset())
    script = parse_pkg({"type": "script", "script": "exit 0"})
    assert image_gc.needed([head(replace(revision(1, "x"), pkg=script))]) == (frozenset(), frozenset())


def test_an_image_ages_while_nobody_needs_it_and_is_young_again_when_somebody_does() -> None:
    images = [pulled("a", 10), pulled("b", 20), pulled("c", 30)]
    assert [one.idle for one in image_gc.aged(images, {"a"}, {"c": 100.0}, 5)] == [0, 25, 105]


@pytest.mark.parametrize(
    ("policy", "old", "room"),
    [
        (POLICY, ["c"], ["c", "b"]),
        (replace(POLICY, max_age=0), [], ["c", "b"]),
        (replace(POLICY, min_age=0, max_age=100), ["c", "b"], ["c", "b", "a"]),
        (replace(POLICY, min_age=10_000), [], []),
    ],
)
def test_the_longest_idle_goes_first_and_none_before_its_time(policy: Policy, old: list[str], room: list[str]) -> None:
    images = [pulled("used"), pulled("a", 60), pulled("b", 600), pulled("c", 6000)]
    assert [one.id for one in image_gc.too_old(images, policy)] == old
    assert [one.id for one in image_gc.for_room(images, policy)] == room


def test_of_two_that_are_idle_alike_the_one_that_was_pulled_first_goes_first() -> None:
    images = [pulled("young", 600, at=9), pulled("old", 600, at=1)]
    assert [one.id for one in image_gc.for_room(images, POLICY)] == ["old", "young"]

"""The scale of levels where revisions take each other's place, and what holds of the level whatever is seen."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct
from msgspec.structs import replace

from boreas_agent.health import assess
from boreas_agent.model import FALLEN_BACK, Attempts, Deadline, Deployment, Good, Head, Observed, Phase, Probed, Revision, Stage
from tests.unit.test_planner import NOW, T0, ended, head, revision, seen, tried

YOUNG = NOW - 3
V1, V2 = revision(1, "v1"), revision(2, "v2")
TWO_V1, TWO_V2 = revision(1, "v1", replicas=2), revision(2, "v2", replicas=2)
WENT = {
    "under way": (Stage.PENDING,),
    "failed": (Stage.PENDING, Stage.FAILED),
    "done": (Stage.PENDING, Stage.SUCCEEDED),
    "rolling back": (Stage.PENDING, Stage.FAILED, Stage.ROLLING_BACK),
    "rolled back": (Stage.PENDING, Stage.FAILED, Stage.ROLLING_BACK, Stage.ROLLED_BACK),
    "rollback failed": (Stage.PENDING, Stage.FAILED, Stage.ROLLING_BACK, Stage.ROLLBACK_FAILED),
}


def deployed(wanted: Revision, how: str, *attempts: Attempts, good: Revision | None = V1, proven: bool = False) -> Head:
    been = tuple((stage, T0 + timedelta(seconds=index)) for index, stage in enumerate(WENT[how]))
    deployment = Deployment(wanted.revision, wanted.version, "apply", been, reason="it is bad" if len(been) > 1 else "")
    return head(wanted, *attempts, deployment=deployment, good=Good(good) if good else None, proven=wanted.instance_hash if proven else "")


LOOPS = {"failures": 3, "exits": 3, "last_exit": ended(3)}


def unready(of: Revision, replica: int = 0) -> Attempts:
    return tried(of, replica, probed=Probed(seen(of).run_key, "", started=True, ready=False, why="HTTP 500"))


@pytest.mark.parametrize(
    ("of", "observed", "expected"),
    [
        (deployed(V2, "under way"), [], "10 deploying starting"),
        (deployed(V2, "under way"), [seen(V1)], "50 deploying revision 1 (v1) still serves; starting"),
        (deployed(V2, "under way"), [seen(V1, phase=Phase.PAUSED)], "10 deploying starting"),
        (deployed(V2, "under way"), [seen(V1, phase=Phase.EXITED)], "10 deploying starting"),
        (deployed(V2, "under way"), [seen(V2, phase=Phase.PAUSED)], "5 deploying paused"),
        (
            deployed(V2, "under way"),
            [seen(V1), seen(V2, started=YOUNG)],
            "50 deploying revision 1 (v1) still serves; running for less than 10 s",
        ),
        (
            deployed(TWO_V2, "under way"),
            [seen(TWO_V1), seen(TWO_V2), seen(TWO_V2, 1, started=YOUNG)],
            "64 deploying 1 of 2 replicas ready; revision 1 (v1) still serves; running for less than 10 s",
        ),
        (deployed(TWO_V2, "under way"), [seen(TWO_V2), seen(TWO_V2, 1), seen(TWO_V1)], "100 running 2 of 2 replicas running"),
        (
            deployed(V2, "under way", tried(V2, **LOOPS)),
            [seen(V1)],
            "50 deploying revision 1 (v1) still serves; crash-looping: exited with code 3",
        ),
        (deployed(V2, "failed", good=None), [], "0 failed it is bad"),
        (deployed(V2, "failed", good=None), [seen(V2, started=YOUNG)], "30 deploying running for less than 10 s"),
        (
            deployed(V2, "failed", good=None),
            [seen(V1)],
            "50 degraded revision 2 (v2) failed: it is bad; revision 1 (v1) still serves; starting",
        ),
        (deployed(V2, "failed", good=None), [seen(V2)], "100 running Running"),
        (deployed(V2, "rolling back"), [], "10 deploying rolling back to revision 1 (v1); revision 2 (v2) failed: it is bad"),
        (deployed(V2, "rolling back"), [seen(V2)], "10 deploying rolling back to revision 1 (v1); revision 2 (v2) failed: it is bad"),
        (
            deployed(V2, "rolling back", unready(V1)),
            [seen(V1)],
            "25 deploying rolling back to revision 1 (v1); revision 2 (v2) failed: it is bad",
        ),
        (
            deployed(V2, "rolling back"),
            [seen(V1, started=NOW)],
            "70 degraded rolling back to revision 1 (v1); revision 2 (v2) failed: it is bad",
        ),
        (
            deployed(TWO_V2, "rolling back", good=TWO_V1),
            [seen(TWO_V1)],
            "64 degraded rolling back to revision 1 (v1); revision 2 (v2) failed: it is bad",
        ),
        (
            deployed(V2, "rolled back"),
            [seen(V1)],
            "70 degraded revision 1 (v1) serves again; revision 2 (v2) failed and is blocked: it is bad",
        ),
        (
            deployed(V2, "rolled back", tried(V1, restarted=Deadline(NOW + 9, 60, "b"), last_exit=ended(1))),
            [seen(V1, started=NOW)],
            "70 degraded revision 1 (v1) serves again; revision 2 (v2) failed and is blocked: it is bad",
        ),
        (
            deployed(V2, "rolled back", tried(V1, **LOOPS)),
            [],
            "0 failed revision 1 (v1), in place of revision 2 (v2), which failed: crash-looping: exited with code 3",
        ),
        (
            deployed(V2, "rolled back", unready(V1)),
            [seen(V1)],
            "25 deploying revision 1 (v1), in place of revision 2 (v2), which failed: not ready: HTTP 500",
        ),
        (deployed(V2, "rollback failed"), [], "0 failed revision 2 (v2) failed: it is bad"),
        (
            deployed(V2, "rollback failed"),
            [seen(V1)],
            "70 degraded revision 1 (v1) serves again; revision 2 (v2) failed and is blocked: it is bad",
        ),
    ],
)
def test_the_level_while_revisions_take_each_others_place(of: Head, observed: list[Observed], expected: str) -> None:
    health = assess(of, observed, NOW).health
    assert f"{health.level} {health.status} {health.msg}" == expected


# --- whatever is seen ------------------------------------------------------------------------------


class Case(Struct, frozen=True):
    """One replica of what is to run: how its instance is, how long it has run, how it failed before, and what its probes found."""

    phase: Phase | None
    age: float
    failures: int
    found: str  # by its probes; "unasked": it has none
    restarted: bool

    def serves(self) -> bool:
        return self.phase is Phase.RUNNING and self.found in ("unasked", "ready", "blemished")

    def observed(self, of: Revision, index: int) -> list[Observed]:
        return [] if self.phase is None else [seen(of, index, self.phase, NOW - self.age)]

    def attempts(self, of: Revision, index: int) -> Attempts:
        count = {"failures": self.failures, "exits": self.failures, "last_exit": ended(1) if self.failures else None}
        after = Deadline(NOW + 9, 60, "b") if self.restarted and self.failures else None
        return tried(of, index, probed=self._probed(of), restarted=after, **count)

    def _probed(self, of: Revision) -> Probed | None:
        well = {"started": True, "ready": True, "well_since": NOW - self.age}
        more: dict[str, dict[str, Any]] = {
            "ready": well,
            "blemished": well | {"blemish": "readiness probe failed: x"},
            "doomed": well | {"doomed": "liveness probe failed: x"},
            "unready": {"started": True, "why": "x"},
            "lost": {"started": True, "lost": True, "why": "x"},
            "unstarted": {"why": "x"},
        }
        return None if self.found == "unasked" else Probed(seen(of).run_key, "", **more[self.found])


cases = st.builds(
    Case,
    st.sampled_from([None, *Phase]),
    st.floats(0, 100),
    st.integers(0, 4),
    st.sampled_from(["unasked", "ready", "blemished", "doomed", "unready", "lost", "unstarted"]),
    st.booleans(),
)
worlds = st.tuples(st.lists(cases, min_size=1, max_size=4), st.sampled_from(list(WENT)), st.booleans(), st.integers(0, 3))


def level(replicas: list[Case], how: str, proven: bool, others: int) -> int:
    """Of these replicas of what is to run, with ``others`` of another revision beside them."""
    old, new = revision(1, "v1", replicas=len(replicas)), revision(2, "v2", replicas=len(replicas))
    back = WENT[how][-1] in FALLEN_BACK
    of, other = (old, new) if back else (new, old)
    attempts = [case.attempts(of, index) for index, case in enumerate(replicas)]
    observed = [one for index, case in enumerate(replicas) for one in case.observed(of, index)]
    beside = [seen(other, index) for index in range(others)]
    return assess(deployed(new, how, *attempts, good=old, proven=proven), [*observed, *beside], NOW).health.level


@given(worlds)
def test_a_version_is_at_80_only_if_every_replica_of_that_version_serves(world: Any) -> None:
    replicas, how, *_ = world
    if level(*world) >= 80:
        assert all(case.serves() for case in replicas)
        assert WENT[how][-1] not in FALLEN_BACK


@given(worlds)
def test_at_50_something_serves_and_below_it_nothing_does_that_has_shown_itself(world: Any) -> None:
    replicas, how, _, others = world
    back = WENT[how][-1] in FALLEN_BACK
    if level(*world) >= 50:
        assert any(case.serves() for case in replicas) or (others and not back)
    else:
        assert not any(case.serves() and case.age >= 10 for case in replicas)
        assert back or not others


@given(worlds)
def test_a_level_of_100_means_that_all_is_well_and_only_that(world: Any) -> None:
    replicas, how, proven, _ = world
    well = all(
        case.serves()
        and case.found != "blemished"
        and (case.age >= 10 or (proven and case.failures < 2))
        and not (case.restarted and case.failures)
        for case in replicas
    )
    assert (level(*world) == 100) == (well and WENT[how][-1] not in FALLEN_BACK)


@given(worlds, st.integers(0, 3), st.integers(1, 3))
def test_another_failure_never_makes_the_level_higher(world: Any, which: int, more: int) -> None:
    replicas, *rest = world
    index = which % len(replicas)
    worse = [replace(case, failures=case.failures + more) if at == index else case for at, case in enumerate(replicas)]
    assert level(worse, *rest) <= level(*world)


@given(worlds)
def test_an_old_instance_that_ends_never_makes_the_level_higher(world: Any) -> None:
    *rest, others = world
    assert level(*rest, max(0, others - 1)) <= level(*rest, others)

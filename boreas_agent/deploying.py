"""The time of deployments: what of it has passed and is not on record yet.

A deadline counts what the agent has seen pass: from one look at the app to the next, and while it acts. What passes while the agent
is down, while a driver cannot answer, or while the app is held or the node drained does not count, and a gap longer than looks can be
apart (the machine slept) only for so much. A commit takes it along; one is made for its sake alone only now and then.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from msgspec.structs import replace

from boreas_agent import rollout
from boreas_agent.clock import Clock
from boreas_agent.model import Deployment, Head, Stage

MOST_APART_SECONDS = 60.0
"""A gap between two looks counts for no more than this, and none is longer while something has a deadline."""
WORTH_A_COMMIT_SECONDS = 10.0
_SLACK_SECONDS = 0.1
"""What is given up for its deadline is given up a moment after it, not before."""


@dataclass(slots=True)
class _Passing:
    """The time of one revision's deployment since the last commit, and when it was last looked at (None: it stands still)."""

    revision: int
    at: float | None = None
    seconds: float = 0.0
    marks: dict[Stage, datetime] = field(default_factory=dict)


class Deploying:
    """For one event loop. Forgetting all of it costs deadlines a little time, and nothing else."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._passing: dict[str, _Passing] = {}

    def look(self, head: Head, *, still: bool = False) -> None:
        """The app is seen, so its time passes from here on, unless people want it to stand ``still``."""
        passing = self._of(head)
        now = self._clock.boottime()
        if passing.at is not None:
            passing.seconds += min(now - passing.at, MOST_APART_SECONDS)
        passing.at = None if still or head.hold is not None else now

    def stand_still(self, app: str) -> None:
        """Nobody knows how the app is; until the next look its time does not pass."""
        if app in self._passing:
            self._passing[app].at = None

    def mark(self, head: Head, stage: Stage) -> None:
        """It comes to ``stage`` now: worth a word in the next commit, not one of its own."""
        self._of(head).marks.setdefault(stage, self._clock.now())

    def now(self, head: Head) -> tuple[Deployment | None, float]:
        """The head's deployment as it is, and the seconds that have passed since it was recorded."""
        passing, now = self._of(head), self._clock.boottime()
        if passing.at is not None:
            passing.seconds += now - passing.at
            passing.at = now
        deployment = head.deployment
        for stage, at in passing.marks.items():
            deployment = rollout.enter(deployment, stage, at)
        return deployment, passing.seconds

    def patience(self, head: Head) -> float | None:
        """For how many seconds more something may be fetched for the app; None: as long as it takes."""
        deployment, passed = self.now(head)
        left = rollout.seconds_left(replace(head, deployment=deployment), passed)
        return None if left is None else left + _SLACK_SECONDS

    def committed(self, head: Head) -> None:
        """What has passed is on record."""
        passing = self._of(head)
        passing.seconds = 0.0
        passing.marks.clear()

    def forget(self, app: str) -> None:
        """The app is gone."""
        self._passing.pop(app, None)

    def _of(self, head: Head) -> _Passing:
        passing = self._passing.get(head.app)
        if passing is None or passing.revision != head.revision.revision:
            passing = self._passing[head.app] = _Passing(head.revision.revision)
        return passing


def worth_a_commit(before: Deployment | None, after: Deployment | None) -> bool:
    """Whether the difference has to be on record by itself."""
    return not rollout.same_way(before, after, WORTH_A_COMMIT_SECONDS)

"""How an app is and how it gets where it shall be: all that is remembered of it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType

from msgspec import Struct, field

from boreas_agent.model.desired import Hold, Revision, RevisionKind
from boreas_agent.model.tried import Attempts, Deadline


class Status(StrEnum):
    """The word beside the level (contract, section 2)."""

    PENDING = "pending"
    DEPLOYING = "deploying"
    RUNNING = "running"
    COMPLETED = "completed"
    DEGRADED = "degraded"
    FAILED = "failed"
    STOPPED = "stopped"
    REMOVING = "removing"


class Health(Struct, frozen=True):
    """0–100, the word, and in a few words why."""

    level: int
    status: Status
    msg: str


class Event(Struct, frozen=True):
    """Something that happened to an app (or to the node: ``app`` None). ``kind`` is CamelCase, like Kubernetes' reasons."""

    kind: str
    message: str
    app: str | None = None
    revision: int | None = None


class Stage(StrEnum):
    """Where a deployment is (``rollout``): forwards to ``SUCCEEDED``, or by ``FAILED`` and ``ROLLING_BACK`` to where it was before."""

    PENDING = "pending"
    FETCHING = "fetching"
    STARTING = "starting"
    VERIFYING = "verifying"
    DRAINING = "draining"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    ROLLING_BACK = "rolling-back"
    ROLLED_BACK = "rolled-back"
    ROLLBACK_FAILED = "rollback-failed"
    SUPERSEDED = "superseded"


OUTCOMES = frozenset({Stage.SUCCEEDED, Stage.FAILED, Stage.ROLLED_BACK, Stage.ROLLBACK_FAILED, Stage.SUPERSEDED})
"""Stages in which a deployment has ended. A succeeded one is still watched for a while, and may yet be rolled back."""
FALLEN_BACK = frozenset({Stage.ROLLING_BACK, Stage.ROLLED_BACK, Stage.ROLLBACK_FAILED})
"""Stages in which the older, good revision is what is to run."""


class Deployment(Struct, frozen=True):
    """The way of one revision into service. ``stages`` are those it has been through, with the (wall) time it came to each.

    ``spent`` counts the seconds of the deadline of the present stage: of progress, of the watch after success, of the rollback. They
    stand still while the agent is down, the app is held or a driver cannot answer. ``unwell``: for how many seconds in a row a
    watched one has been below the line, None where it is not. ``ready``: the most replicas that were ready at once. ``image``: the bytes
    that it runs, from the first of its instances on; ``digest``: where they can be fetched again. ``pre_started``: its ``pre_start``
    hook has succeeded.
    """

    revision: int
    version: str
    kind: RevisionKind
    stages: tuple[tuple[Stage, datetime], ...]
    reason: str = ""
    spent: float = 0.0
    unwell: float | None = None
    ready: int = 0
    image: str = ""
    pre_started: bool = False
    digest: str = ""

    @property
    def stage(self) -> Stage:
        """The present one."""
        return self.stages[-1][0]

    @property
    def outcome(self) -> Stage | None:
        """How it ended; None while it is under way."""
        return self.stage if self.stage in OUTCOMES else None

    @property
    def started_at(self) -> datetime:
        """When it was asked for."""
        return self.stages[0][1]

    @property
    def finished_at(self) -> datetime | None:
        """When it ended; None while it is under way."""
        return self.stages[-1][1] if self.outcome else None


class Good(Struct, frozen=True):
    """The revision to go back to: the newest older one that was wholly healthy, and the bytes it ran, where known."""

    revision: Revision
    image: str = ""
    digest: str = ""


class Head(Struct, frozen=True):
    """All that the agent remembers of one app: the newest revision and how it is doing. Immutable; replaced whole.

    ``proven`` is the instance hash that was once wholly healthy for ``min_healthy_seconds``; such an app is
    healthy again at once when it is healed. ``attempts`` is keyed by replica, and is about the running revision.
    ``deployment`` is the current or last one, None for what was adopted. ``hooked``: of the runs that are still seen, of whatever
    revision, those beside which ``post_start`` has been carried out (``hooks.key_of``), each with why it failed, or the empty string.
    """

    revision: Revision
    health: Health
    updated: datetime
    hold: Hold | None = None
    proven: str = ""
    attempts: Mapping[int, Attempts] = field(default_factory=lambda: MappingProxyType({}))
    unknown_since: Deadline | None = None  # the driver has not been able to answer since then
    homes: frozenset[str] = frozenset()  # kinds of which instances were last seen: their drivers must answer for the app
    deployment: Deployment | None = None
    good: Good | None = None
    hooked: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def app(self) -> str:
        """The app's name."""
        return self.revision.app

    @property
    def fallback(self) -> Good | None:
        """What is to run instead of the desired revision, because that one failed."""
        if self.good is None or self.deployment is None:
            return None
        return self.good if self.deployment.stage in FALLEN_BACK else None

    @property
    def ran(self) -> Good:
        """The running revision with the bytes that it runs, where they are known."""
        if self.fallback is not None:
            return self.fallback
        deployment = self.deployment
        return Good(self.revision, deployment.image, deployment.digest) if deployment is not None else Good(self.revision)

    @property
    def running(self) -> Revision:
        """The revision that is to run now: the desired one, or what is fallen back to."""
        fallback = self.fallback
        return self.revision if fallback is None else fallback.revision

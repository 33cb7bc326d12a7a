"""What answers look like, for the OpenAPI document alone: ``render`` makes them, and more fields than these may come."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from boreas_agent.model import Status

Level = Annotated[int, Field(ge=0, le=100)]


class Described(BaseModel):
    """Base of them all: built when the document is asked for, which is seldom."""

    model_config = ConfigDict(defer_build=True)


class Healthy(Described):
    """80 and more serve."""

    level: Level
    msg: str


class Receipt(Described):
    """What was recorded; the last two only where ``wait`` was given."""

    success: Literal[True]
    message: str
    app: str
    version: str
    revision: int
    changed: bool
    healthy: Healthy | None = None
    status: Status | None = None


class Action(Described):
    """Something that would be done, and why; of the fields in between those that the kind of action has."""

    action: Literal["prepare", "pre_start", "check", "start", "post_start", "pre_stop", "stop", "reload", "remove", "resume", "rename"]
    instance: str
    revision: int
    replica: int
    image: str | None = None
    artifacts: list[str] | None = None
    files: list[str] | None = None
    command: list[str] | None = None
    timeout_seconds: float | None = None
    signal: str | None = None
    signals: list[str] | None = None
    grace_seconds: float | None = None
    cause: str


class Plan(Receipt):
    """What an apply would be answered, and what would follow."""

    actions: list[Action]


class Drained(Described):
    """Who drained the node, why, and since when."""

    by: str
    reason: str
    since: datetime


class DrainReceipt(Described):
    """The answer to a drain, or to its end."""

    success: Literal[True]
    message: str
    changed: bool
    drained: Drained | None


class Held(Described):
    """Who holds the app, why, and until when (null: until it is released)."""

    by: str
    reason: str
    until: datetime | None


class Blocked(Described):
    """The desired revision is not tried any more."""

    revision: int
    version: str
    reason: str


class CurrentDeployment(Described):
    """The deployment under way, or the last one."""

    kind: str
    phase: str
    outcome: str | None
    started_at: datetime
    finished_at: datetime | None
    reason: str
    rollback_to: int | None


class Usage(Described):
    """What all replicas use: bytes, processor seconds, and per cent of one processor since the sample before."""

    memory_bytes: int
    cpu_seconds: float
    cpu_percent: float | None
    sampled_at: datetime


class Image(Described):
    """What a container runs: as it was asked for, the id of these bytes on the node, and where they can be fetched again."""

    reference: str
    id: str | None
    digest: str | None


class AppStatus(Described):
    """How an app is; the level speaks of the desired version."""

    app: str
    version: str
    healthy: Healthy
    status: Status
    updated: datetime
    revision: int
    replicas: int
    type: str
    kind: str
    restarts: int
    usage: Usage | None
    held: Held | None
    running_revision: int
    running_version: str
    blocked: Blocked | None
    deployment: CurrentDeployment | None
    image: Image | None = None


class NodeStatus(Described):
    """All apps, and the level of the worst that is to be up."""

    apps: list[AppStatus]
    healthy: Healthy
    drained: Drained | None
    node: dict[str, Any] | None = None
    operator: dict[str, Any] | None = None


class Health(Described):
    """Whether the agent can serve and record."""

    status: Literal["healthy"]
    service: str


class Ready(Described):
    """The first pass has finished."""

    status: Literal["ready"]


class Revision(Described):
    """What was asked for; in ``spec`` values of the environment, files, probes' headers, log options and queries are masked."""

    app: str
    revision: int
    version: str
    type: str
    kind: str
    spec: dict[str, Any]
    submitted_at: datetime
    submitted_by: str


class Revisions(Described):
    """Newest first; ``next`` is the ``before`` of the page that follows, null on the last one."""

    app: str
    revisions: list[Revision]
    next: int | None


class Deployment(Described):
    """What came of a revision; no end and no outcome while it is under way."""

    id: int
    app: str
    revision: int
    version: str
    kind: str
    phase: str
    phases: list[dict[str, Any]]
    started_at: datetime
    finished_at: datetime | None
    seconds: float | None
    outcome: str | None
    reason: str
    image: str | None
    digest: str | None


class Deployments(Described):
    """Newest first; ``next`` is the ``before`` of the page that follows, null on the last one."""

    app: str
    deployments: list[Deployment]
    next: int | None


class Event(Described):
    """Something that happened, to an app or to the node itself."""

    id: int
    at: datetime
    app: str | None
    revision: int | None
    kind: str
    message: str


class Events(Described):
    """Oldest first; ``next`` is the ``after`` of what follows."""

    events: list[Event]
    next: int | None


class Fault(Described):
    """What is wrong with a field."""

    field: str
    message: str


class Problem(Described):
    """Why something was not done; ``errors`` where fields are wrong (422)."""

    success: Literal[False]
    message: str
    status: int | str
    title: str
    errors: list[Fault] = []


ALL: tuple[type[Described], ...] = (
    *(Receipt, Plan, DrainReceipt, AppStatus, NodeStatus, Health, Ready),
    *(Revisions, Deployments, Events, Problem),
)

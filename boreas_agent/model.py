"""The frozen vocabulary inside the agent: what is wanted, what is seen, what to do, how it is.

Nothing here does anything; drivers produce :class:`Observed`, the planner turns it into a
:class:`Plan`, the health function into :class:`Health`, the store remembers :class:`Head`.
"Boot seconds" are readings of the boot-time clock (see ``clock.py``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Literal

from boreas_agent.spec import Pkg

RevisionKind = Literal["apply", "restart", "rollback", "remove"]


# --- what is wanted ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, order=True)
class InstanceName:
    """One replica of one revision of one app; with the node's identity, every real name derives from it."""

    app: str
    revision: int
    replica: int

    def __str__(self) -> str:
        return f"{self.app}.{self.revision}.{self.replica}"


@dataclass(frozen=True, slots=True)
class Revision:
    """One recorded desired state of an app. Revisions count up per app and are never rewritten.

    ``spec_hash`` identifies the request (version and canonical pkg): the same request again is no change.
    ``instance_hash`` identifies what an instance is made from; instances whose hash equals it are kept
    (a change of ``replicas`` alone replaces nothing, a restart or another version replaces all).
    ``generation`` is the revision that last asked for everything to be replaced (see ``spec.instance_hash``).
    """

    app: str
    revision: int
    version: str
    kind: RevisionKind
    generation: int
    pkg: Pkg
    spec_hash: str
    instance_hash: str
    submitted_at: datetime
    submitted_by: str

    @property
    def removed(self) -> bool:
        """Desired state is: absent."""
        return self.kind == "remove"

    @property
    def wanted(self) -> int:
        """How many instances there should be."""
        return 0 if self.removed else self.pkg.replicas


@dataclass(frozen=True, slots=True)
class Hold:
    """People are at work on the app: leave it exactly as it is. ``until`` None = until released.

    ``until`` is wall-clock by nature (people name it), so it is only for display; the hold ends at
    boot second ``expires`` of boot ``boot_id``, or, on another boot, ``seconds`` after the agent's start.
    """

    by: str
    reason: str
    until: datetime | None
    seconds: float | None = None
    expires: float | None = None
    boot_id: str = ""


@dataclass(frozen=True, slots=True)
class Instance:
    """An instance as it should be: everything a driver needs to create it.

    ``record`` is the JSON text of the whole revision (``records.encode``). The instance carries
    it (a label, a file in its folder), so that an agent with an empty database adopts it.
    """

    name: InstanceName
    version: str
    hash: str
    pkg: Pkg
    record: str


# --- what is seen --------------------------------------------------------------------------------


class Phase(StrEnum):
    """What an instance is really doing."""

    CREATED = "created"  # exists and was never started
    RUNNING = "running"
    PAUSED = "paused"
    EXITED = "exited"


@dataclass(frozen=True, slots=True)
class Exit:
    """How one run of an instance ended. ``run`` identifies the run within the instance.

    ``code`` and ``signal`` are both None where nobody could see the status (``lost``), or where the program
    could not be started at all; ``reason`` then says which. ``seconds`` is how long the run
    lasted, by a clock that does not jump, None where unknown.
    """

    run: str
    started_at: datetime | None
    exited_at: datetime
    code: int | None = None
    signal: str | None = None
    oom_killed: bool = False
    reason: str = ""
    seconds: float | None = None
    output_tail: str = ""
    lost: bool = False  # it ran, and nobody can know how it ended
    unhealthy: str = ""  # why the agent ended it: a probe failed as often as it may
    well_seconds: float | None = None  # how long its probes found it well; None: it has none

    @property
    def known(self) -> bool:
        """Somebody saw the status."""
        return self.code is not None or self.signal is not None

    @property
    def ok(self) -> bool:
        """The program ended by itself with status 0."""
        return self.code == 0 and not self.unhealthy

    @property
    def lasted(self) -> float | None:
        """Seconds of the run that speak for it: a program that answers no probe does not run stably, however long it runs."""
        return self.seconds if self.well_seconds is None else self.well_seconds

    @property
    def how(self) -> str:
        """The status in words."""
        if self.reason and not self.known:
            return self.reason
        how = f"killed by {self.signal}" if self.signal else f"exited with code {self.code}"
        return f"{how} (out of memory)" if self.oom_killed else how

    def __str__(self) -> str:
        return self.unhealthy or self.how


@dataclass(frozen=True, slots=True)
class Observed:
    """An instance as a driver sees it now.

    ``run`` counts the starts of this instance where the driver can count them, else 0; it is handed
    back to ``Driver.start`` so that one decision leads to at most one start.
    ``exits`` are the ends of runs that the driver still knows, oldest first; in phase EXITED the last
    one belongs to the current run. ``started`` is when the current run began, in boot seconds, None
    where unknown. ``misnamed`` says that somebody renamed it. ``record`` is what it carries.
    ``life`` tells the current run from all others of the instance, and is the ``Exit.run`` of its end. ``address`` is where
    its ports answer, empty where it has no network; ``checked`` what the image's own health check says, where it has one.
    """

    name: InstanceName
    kind: str
    version: str
    hash: str
    ref: str
    phase: Phase
    run: int = 0
    started: float | None = None
    exits: tuple[Exit, ...] = ()
    misnamed: bool = False
    record: str = ""
    life: str = ""
    address: str = ""
    checked: Literal["", "starting", "healthy", "unhealthy"] = ""

    @property
    def run_key(self) -> str:
        """Tells the current run from all others of the replica."""
        return f"{self.name.revision}.{self.life}"

    @property
    def last_exit(self) -> Exit | None:
        """How the current run ended, where it has."""
        return self.exits[-1] if self.phase is Phase.EXITED and self.exits else None


@dataclass(frozen=True, slots=True)
class Executed:
    """How a command ended that ran beside an instance: its status, or ``problem``, why it has none; ``output`` is its end."""

    code: int | None
    output: str = ""
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Probed:
    """What its probes have found of one run (``Observed.run_key``). Changes with verdicts, not with every result.

    ``by`` identifies the probes that were asked. ``ready`` without a readiness probe: as soon as started.
    """

    run: str
    by: str
    started: bool = False  # the startup probe has passed, or there is none
    ready: bool = False
    lost: bool = False  # it was ready once, and is not any more
    why: str = ""  # why it is not started or not ready, in a few words
    blemish: str = ""  # a probe has failed lately, and less often than it may
    doomed: str = ""  # a startup or liveness probe failed as often as it may: to be restarted, and why
    well_since: float | None = None  # boot second from which on it was ready without a break
    well_seconds: float = 0.0  # of one that is doomed: how long it had been well


# --- what was tried ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Deadline:
    """A moment on the boot-time clock that survives restarts of the agent.

    On another boot the whole ``delay`` starts over (see ``rebased``).
    """

    at: float
    delay: float
    boot_id: str

    def rebased(self, boot_id: str, now: float) -> Deadline:
        """The same deadline as seen on the boot ``boot_id`` at boot second ``now``."""
        return self if boot_id == self.boot_id else Deadline(now + self.delay, self.delay, boot_id)


@dataclass(frozen=True, slots=True)
class Attempts:
    """What is remembered of one replica's failures, for the instance hash it was counted for.

    ``failures`` counts consecutive failed runs or starts since the last stable run, ``exits`` those of
    them that were runs; ``not_before`` is when the next start is allowed; ``restarts`` counts all
    starts after the first.
    """

    replica: int
    hash: str
    failures: int = 0
    exits: int = 0
    free: bool = False  # the first restart of the row was immediate, so the delays began one later
    restarts: int = 0
    started: bool = False  # an instance was started and its end has not been seen yet
    not_before: Deadline | None = None
    restarted: Deadline | None = None  # until then the last restart counts as 'not long ago'
    last_failure: str = ""
    last_exit: Exit | None = None
    recorded: tuple[str, ...] = ()  # runs whose exits are already counted (the newest few)
    probed: Probed | None = None  # what the probes of the current run have found; None: it has none

    def findings(self, seen: Observed) -> Probed | None:
        """What the probes have found of the run that is ``seen``; None where it has none."""
        return self.probed if self.probed is not None and self.probed.run == seen.run_key else None


# --- what to do ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Prepare:
    """Make everything ready that a start needs (pull the image), before anything is stopped."""

    want: Instance
    cause: str


@dataclass(frozen=True, slots=True)
class Start:
    """Create the instance if need be and start it; ``after`` is the run it follows (``Observed.run``)."""

    want: Instance
    after: int
    cause: str


@dataclass(frozen=True, slots=True)
class Stop:
    """End the instance's whole process tree: signal, grace, SIGKILL."""

    seen: Observed
    signal: str
    grace_seconds: float
    cause: str


@dataclass(frozen=True, slots=True)
class Remove:
    """Delete what is left of a stopped instance (container, run folder, cgroup); never its logs."""

    seen: Observed
    cause: str


@dataclass(frozen=True, slots=True)
class Resume:
    """Unpause."""

    seen: Observed
    cause: str


@dataclass(frozen=True, slots=True)
class Rename:
    """Give it back its derived name."""

    seen: Observed
    cause: str


Action = Prepare | Start | Stop | Remove | Resume | Rename


@dataclass(frozen=True, slots=True)
class Plan:
    """Ordered steps; the actions of one step are independent and may run together.

    ``wake_at`` (boot seconds) is when planning again could give another answer though nothing happened.
    """

    steps: tuple[tuple[Action, ...], ...] = ()
    wake_at: float | None = None

    @property
    def actions(self) -> tuple[Action, ...]:
        """All actions in order."""
        return tuple(action for step in self.steps for action in step)


# --- how it is -----------------------------------------------------------------------------------


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


@dataclass(frozen=True, slots=True)
class Health:
    """0–100, the word, and in a few words why."""

    level: int
    status: Status
    msg: str


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to an app (or to the node: ``app`` None). ``kind`` is CamelCase, like Kubernetes' reasons."""

    kind: str
    message: str
    app: str | None = None
    revision: int | None = None


@dataclass(frozen=True, slots=True)
class Drained:
    """The node is to run nothing, whatever its apps ask for, until somebody ends that; ``at`` is when it was asked for."""

    by: str
    reason: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Head:
    """All that the agent remembers of one app: the newest revision and how it is doing. Immutable; replaced whole.

    ``proven`` is the instance hash that was once wholly healthy for ``min_healthy_seconds``; such an app is
    healthy again at once when it is healed. ``attempts`` is keyed by replica.
    """

    revision: Revision
    health: Health
    updated: datetime
    hold: Hold | None = None
    proven: str = ""
    attempts: Mapping[int, Attempts] = field(default_factory=lambda: MappingProxyType({}))
    unknown_since: Deadline | None = None  # the driver has not been able to answer since then
    homes: frozenset[str] = frozenset()  # kinds of which instances were last seen: their drivers must answer for the app

    @property
    def app(self) -> str:
        """The app's name."""
        return self.revision.app

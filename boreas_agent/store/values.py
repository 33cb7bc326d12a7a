"""What goes into the store and what comes back, beside the vocabulary of ``model``."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from msgspec import Struct, field

from boreas_agent.model import Action, Attempts, Deadline, Deployment, Event, Exit, Health, InstanceName, ScriptRun


class Receipt(Struct, frozen=True):
    """The durable answer to a request; its fields are those of the HTTP answer."""

    app: str
    version: str
    revision: int
    changed: bool
    message: str


class Preview(Struct, frozen=True):
    """What a request would be answered, and what would be done for it, in order."""

    receipt: Receipt
    actions: tuple[Action, ...]


class Outcome(Struct, frozen=True):
    """What one reconcile pass of one app found and did; committed whole, in one transaction.

    It speaks of ``revision``: where the head has moved on meanwhile, exits and events are still recorded, the rest
    is dropped (the next pass speaks of the new head). An exit already recorded (same instance and run) changes nothing, nor does
    a run of a script whose end is recorded.
    ``gone`` says that a removal has finished: the app leaves the list, its history stays. ``deployment`` or
    ``hooked`` None: as it was.
    """

    app: str
    revision: int
    health: Health
    attempts: Mapping[int, Attempts] = field(default_factory=lambda: MappingProxyType({}))
    proven: str = ""
    unknown_since: Deadline | None = None
    homes: frozenset[str] = frozenset()
    exits: tuple[tuple[InstanceName, Exit], ...] = ()
    events: tuple[Event, ...] = ()
    runs: tuple[tuple[InstanceName, ScriptRun], ...] = ()
    gone: bool = False
    deployment: Deployment | None = None
    hooked: Mapping[str, str] | None = None


class HistoryLimits(Struct, frozen=True):
    """How much history is kept, for each table: the newest ``rows`` and nothing older than ``days``.

    A revision that is a head, and a current health row, are always kept.
    """

    rows: int = 200_000
    days: float = 365.0

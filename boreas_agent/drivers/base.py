"""What a driver is: the only thing that touches the outside world on behalf of apps.

A driver knows nothing of desired state, history or backoff. Its effects repeat safely: stopping what
is gone is success, starting what runs is success, creating what exists adopts it (ours and right),
replaces it (ours and wrong) or refuses (foreign, ``Terminal``). Where it cannot answer it raises
``Unavailable``: unknown is not absent. ``tests/contract`` holds one suite that every driver passes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Protocol

from boreas_agent.model import Executed, Exit, Instance, Observed

ALL_APPS = "*"
"""An event that names no app: look at everything."""


class Driver(Protocol):
    """Runs the instances of one or more kinds of pkg."""

    kinds: frozenset[str]
    keeps_exits: bool
    """Exits stay readable after the next start of the instance, so they need not be recorded before it."""

    async def open(self) -> None:
        """Connect what can be connected; never raises because the other side is away."""

    async def close(self) -> None:
        """Let go of everything in this process; touches no instance."""

    async def observe(self, app: str) -> Sequence[Observed]:
        """Every instance of ``app`` that is ours, of every revision. Raises Unavailable."""

    async def observe_all(self) -> Mapping[str, Sequence[Observed] | None]:
        """The same for all apps, at the cost of about one look; None for an app of which not enough can be said now. Raises Unavailable."""

    async def prepare(self, want: Instance) -> None:
        """Fetch and verify all that ``start`` needs; stops and starts nothing. Cancellable. Raises Transient, Terminal."""

    async def prepared(self, want: Instance) -> bool:
        """Whether ``prepare`` has nothing to do; cheap. Raises Unavailable."""

    async def start(self, want: Instance, after: int) -> None:
        """Create and start ``want`` as the run that follows ``after``; returns once it runs. Raises Transient, Terminal."""

    async def stop(self, seen: Observed, signal: str, grace_seconds: float) -> Exit | None:
        """End the whole process tree, by force after the grace; how it ended, or None where it was gone. Raises Transient."""

    async def remove(self, seen: Observed) -> None:
        """Delete what is left of a stopped instance. Raises Transient."""

    async def resume(self, seen: Observed) -> None:
        """Unpause. Raises Transient."""

    async def rename(self, seen: Observed) -> None:
        """Give the instance its derived name back. Raises Transient."""

    async def execute(self, seen: Observed, command: Sequence[str], seconds: float) -> Executed:
        """Run a command beside a running instance, as its user and in its environment, without a shell and without input.

        It is killed with all that it started after ``seconds``, and does not outlive this agent. Raises Unavailable where nobody
        can know how it ended, or whether the instance runs.
        """

    def events(self) -> AsyncIterator[str]:
        """Names of apps that something happened to, or ``ALL_APPS``. Hints only; never ends, never raises."""

"""What a driver is: the only thing that touches the outside world on behalf of apps.

A driver knows nothing of desired state, history or backoff. Its effects repeat safely: stopping what
is gone is success, starting what runs is success, creating what exists adopts it (ours and right),
replaces it (ours and wrong) or refuses (foreign, ``Terminal``). Where it cannot answer it raises
``Unavailable``: unknown is not absent. ``tests/contract`` holds one suite that every driver passes.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Collection, Mapping, Sequence
from typing import Protocol

from boreas_agent.model import Executed, Exit, Instance, Observed, OutputLine, OutputQuery

ALL_APPS = "*"
"""An event that names no app: look at everything."""


class Driver(Protocol):
    """Runs the instances of one or more kinds of pkg."""

    kinds: frozenset[str]
    keeps_exits: bool
    """Exits stay readable after the next start of the instance, so they need not be recorded before it."""

    @property
    def epoch(self) -> int:
        """How often all that it runs may have ended together, as far as this agent has seen: with the engine, for example."""

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

    def progress(self, app: str) -> str:
        """What ``prepare`` is doing for the app, in a few words; empty where there is nothing to tell."""

    async def start(self, want: Instance, after: int) -> None:
        """Create and start ``want`` as the run that follows ``after``; returns once it runs. Raises Transient, Terminal."""

    async def check(self, want: Instance, seconds: float) -> Executed:
        """Ask the check of a script that does not run, as its user and in its environment; it is killed after ``seconds``.

        ``want`` exists afterwards, and was not started. Raises Unavailable where nobody can know what it said, Transient, Terminal.
        """

    async def stop(self, seen: Observed, signal: str, grace_seconds: float) -> Exit | None:
        """End the whole process tree, by force after the grace; how it ended, or None where it was gone. Raises Transient."""

    async def reload(self, seen: Observed, want: Instance, signals: Sequence[str]) -> bool:
        """Give the files with ``on_change: signal`` the contents that were prepared for ``want``, then send the main process these signals.

        From then on the instance is seen as ``want``, under its own name; from the first change to that moment without a hash. A
        repetition writes and sends again. Whether it was there; one that runs no more goes over as well. Raises Missing, Transient.
        """

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

    def output(self, app: str, query: OutputQuery) -> AsyncGenerator[Sequence[OutputLine], None]:
        """What instances of ``app`` wrote, by time, a few lines together; with ``follow`` without end. Raises Unavailable, Conflict.

        The first few come at once, none where nothing was written yet.
        """

    async def run_once(self, want: Instance, command: Sequence[str], seconds: float) -> Executed:
        """Run a command as ``want`` would run, with its user, environment and files but without its ports, beside no instance.

        It is no instance for anybody. It is killed with all that it started after ``seconds``, and where this is cancelled; should
        this agent die, what is left of it ends by the time the next one looks at anything. Raises Transient, Terminal.
        """

    async def collect(self, keep: Mapping[str, Collection[int]]) -> None:
        """Delete what is kept of revisions of these apps for no instance, but for the ones given; of an app with none of them, all."""

    def events(self) -> AsyncIterator[str]:
        """Names of apps that something happened to, or ``ALL_APPS``. Hints only; never ends, never raises."""

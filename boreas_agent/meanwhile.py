"""What status says of an app while something that takes long is done for it: fetching, hooks, waiting for an end.

None of it ends a pass: what was found and done is recorded by the pass itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from functools import partial
from itertools import count
from typing import Any

from msgspec.structs import replace

from boreas_agent import rollout
from boreas_agent.clock import Clock
from boreas_agent.drivers.base import Driver
from boreas_agent.errors import CannotRecord
from boreas_agent.executor import Done
from boreas_agent.hooking import SLOW_SECONDS
from boreas_agent.model import Event, Head, Health, Instance, Stage, Status
from boreas_agent.spec import DockerPkg, Pkg
from boreas_agent.store.store import Store
from boreas_agent.store.values import Outcome
from boreas_agent.view import View, is_news

FIRST_PROGRESS_SECONDS = 2.0
PROGRESS_SECONDS = 5.0
PROGRESS_EVENTS = 6
"""Fetching that takes long says how far it is after a moment and then at every such pause, and every so many pauses in the history, too."""


class Meanwhile:
    """For one event loop; keeps nothing."""

    def __init__(self, store: Store, drivers: Mapping[str, Driver], clock: Clock) -> None:
        self._store = store
        self._drivers = drivers
        self._clock = clock

    def telling(self, view: View) -> _Telling:
        """Where the block takes long, status says how the app is, not how it was, and how far fetching is."""
        return _Telling(partial(self._as_it_goes, view))

    async def fetching(self, head: Head, want: Instance) -> None:
        """Fetching begins: at once in status and history."""
        if any(tried.last_failure for tried in head.attempts.values()):
            return  # what failed the last time is still what there is to say
        what = _brought(want.pkg)
        health = Health(max(10, min(head.health.level, 50)), Status.DEPLOYING, f"fetching {what}")
        event = Event("Fetching", f"fetching {what} for {want.name}", head.app, want.name.revision)
        outcome = Outcome(head.app, head.revision.revision, health, head.attempts, head.proven, homes=head.homes, events=(event,))
        fetching = rollout.enter(head.deployment, Stage.FETCHING, self._clock.now())
        await self._store.record(replace(outcome, deployment=fetching))

    async def doing(self, view: View, words: str) -> None:
        """A hook takes long. What failed the last time is still what there is to say."""
        known = self._store.head(view.head.app)
        health = replace(view.assess(self._clock.boottime()).health, msg=words)
        if known is not None and known.revision.revision == view.head.revision.revision and health.status is not Status.FAILED:
            await self._say(view, known, health)

    async def _as_it_goes(self, view: View, over: asyncio.Event) -> None:
        await self._worse(view)
        for rounds in count():
            with suppress(TimeoutError):
                async with asyncio.timeout(PROGRESS_SECONDS if rounds else FIRST_PROGRESS_SECONDS):
                    await over.wait()
            if over.is_set():
                return
            await self._progress(view.head, told=rounds % PROGRESS_EVENTS != 0)

    async def _worse(self, view: View) -> None:
        """It is not as well as is on record."""
        known = self._store.head(view.head.app)
        health = view.assess(self._clock.boottime()).health
        if known is None or known.revision.revision != view.head.revision.revision or known.health.level <= health.level:
            return  # fetching has told already, or a newer revision came
        await self._say(view, known, health)

    async def _say(self, view: View, known: Head, health: Health) -> None:
        """The health alone: the pass records the rest."""
        outcome = view.outcome(health, view.head.proven, Done())
        await self._tell(replace(outcome, exits=(), events=(), runs=(), attempts=known.attempts))

    async def _progress(self, head: Head, *, told: bool) -> None:
        """How far fetching is: in the status, and, unless the history has been ``told`` a moment ago, in an event."""
        said, known = self._drivers[head.running.pkg.type].progress(head.app), self._store.head(head.app)
        if not said or known is None or known.revision is not head.revision:
            return
        events = () if told else (Event("FetchProgress", said, head.app, head.running.revision),)
        outcome = Outcome(
            head.app,
            head.revision.revision,
            replace(known.health, msg=said),
            known.attempts,
            known.proven,
            unknown_since=known.unknown_since,
            homes=known.homes,
            events=events,
        )
        if is_news(known, outcome):
            await self._tell(outcome)

    async def _tell(self, outcome: Outcome) -> None:
        with suppress(CannotRecord):  # words are not worth what is being done; the pass records it, or says that it cannot
            await self._store.record(outcome)


class _Telling:
    """Begins ``as_it_goes`` where the block takes long, and at the end of the block tells it that it is over."""

    def __init__(self, as_it_goes: Callable[[asyncio.Event], Coroutine[Any, Any, None]]) -> None:
        self._as_it_goes = as_it_goes
        self._over = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(SLOW_SECONDS, self._begin)

    async def __aexit__(self, *_: object) -> None:
        self._timer.cancel()
        self._over.set()
        if self._task is not None:
            await self._task

    def _begin(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._as_it_goes(self._over))


def _brought(pkg: Pkg) -> str:
    """What has to be here before it can start, in words."""
    fetched = pkg.image if isinstance(pkg, DockerPkg) else "its artifacts" if pkg.artifacts else ""
    return " and ".join(part for part in (fetched, "its files" if pkg.files else "") if part)

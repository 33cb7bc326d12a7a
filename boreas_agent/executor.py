"""Carries out a plan, step by step; decides nothing.

Between steps it looks whether the plan still speaks of the newest revision; fetching, which may take long, is
given up in the middle as soon as it does not. Every action leaves an event that says why.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeVar, assert_never

from boreas_agent.drivers.base import Driver
from boreas_agent.errors import BoreasError, Terminal, Unavailable
from boreas_agent.model import (
    Action,
    Drained,
    Event,
    Exit,
    Head,
    Instance,
    InstanceName,
    Observed,
    Plan,
    Prepare,
    Remove,
    Rename,
    Resume,
    Start,
    Stop,
)

T = TypeVar("T")


class Desired(Protocol):
    """What the executor must know of the store."""

    def head(self, app: str) -> Head | None:
        """The newest head."""

    def changed(self, app: str) -> Awaitable[None]:
        """Returns when it changes, or the drain of the node does."""

    @property
    def drained(self) -> Drained | None:
        """Whether the node is."""


@dataclass(frozen=True, slots=True)
class Failure:
    """An action that did not work: the replicas that cannot start for it (none: another matter), why, and whether waiting helps."""

    replicas: tuple[int, ...]
    event: Event
    hopeless: bool


@dataclass(slots=True)
class Done:
    """What was done. ``superseded``: the rest was dropped because a newer revision came."""

    events: list[Event] = field(default_factory=list)
    exits: list[tuple[InstanceName, Exit]] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    superseded: bool = False

    def add(self, other: Done) -> None:
        """Append what was done after."""
        self.events += other.events
        self.exits += other.exits
        self.failures = other.failures
        self.superseded = other.superseded


class _Superseded(Exception):
    """The action was given up for a newer revision."""


class Executor:
    """Needs the drivers to act, the store to know the newest revision, and whom to tell that fetching began."""

    def __init__(self, driver: Callable[[str], Driver], desired: Desired, fetching: Callable[[Head, Instance], Awaitable[None]]) -> None:
        self._driver = driver
        self._desired = desired
        self._fetching = fetching

    async def carry_out(self, plan: Plan, head: Head, drained: Drained | None = None) -> Done:
        """Run the steps in order; the first step with a failure is the last one. ``drained``: what the plan was made for."""
        done = Done()
        for step in plan.steps:
            if self._superseded(head) or self._desired.drained != drained:
                done.superseded = True
                break
            await self._step(step, plan, head, done)
            if done.failures or done.superseded:
                break
        return done

    async def _step(self, step: tuple[Action, ...], plan: Plan, head: Head, done: Done) -> None:
        if len(step) == 1:
            await self._guarded(step[0], plan, head, done)
            return
        results = await asyncio.gather(*(self._guarded(action, plan, head, done) for action in step), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def _guarded(self, action: Action, plan: Plan, head: Head, done: Done) -> None:
        """One action; what it raises on purpose becomes a failure with an event."""
        try:
            await self._do(action, head, done)
        except _Superseded:
            done.superseded = True
        except BoreasError as error:
            # A driver that cannot answer says nothing about the app: it is asked again, and no attempt is counted.
            replicas = () if isinstance(error, Unavailable) else _not_started(action, plan)
            event = _event(f"{type(action).__name__}Failed", action, str(error))
            done.failures.append(Failure(replicas, event, isinstance(error, Terminal)))

    async def _do(self, action: Action, head: Head, done: Done) -> None:
        match action:
            case Prepare(want, cause):
                driver = self._driver(want.pkg.type)
                if not await driver.prepared(want):
                    await self._fetching(head, want)
                    await self._unless_superseded(head, driver.prepare(want))
                    done.events.append(_event("Prepared", action, f"everything for {want.name} is here: {cause}"))
            case Start(want, after, cause):
                await self._driver(want.pkg.type).start(want, after)
                done.events.append(_event("Started", action, f"started {want.name}: {cause}"))
            case Stop(seen, signal, grace, cause):
                # Not given up for a newer revision: once the signal is out, it must not count as running for anybody.
                ended = await self._driver(seen.kind).stop(seen, signal, grace)
                if ended is not None:
                    done.exits.append((seen.name, replace(ended, reason=f"stopped: {cause}")))
                done.events.append(_event("Stopped", action, f"stopped {seen.name}: {cause}"))
            case Remove(seen, cause):
                await self._driver(seen.kind).remove(seen)
                done.events.append(_event("Removed", action, f"removed {seen.name}: {cause}"))
            case Resume(seen, cause):
                await self._driver(seen.kind).resume(seen)
                done.events.append(_event("Resumed", action, f"resumed {seen.name}: {cause}"))
            case Rename(seen, cause):
                await self._driver(seen.kind).rename(seen)
                done.events.append(_event("Renamed", action, f"gave {seen.name} its name back: {cause}"))
            case _:
                assert_never(action)

    async def _unless_superseded(self, head: Head, work: Coroutine[Any, Any, T]) -> T:
        task = asyncio.ensure_future(work)
        try:
            while not task.done():
                changed = asyncio.ensure_future(self._desired.changed(head.app))
                try:
                    # Asked after ``changed``, so that no change falls between the two; a drained node fetches nothing.
                    if self._superseded(head) or self._desired.drained is not None:
                        raise _Superseded
                    await asyncio.wait({task, changed}, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    changed.cancel()
            return task.result()
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait({task})

    def _superseded(self, head: Head) -> bool:
        newest = self._desired.head(head.app)
        return newest is not None and (newest.revision.revision != head.revision.revision or newest.hold != head.hold)


def _event(kind: str, action: Action, message: str) -> Event:
    name = action.want.name if isinstance(action, Prepare | Start) else _seen(action).name
    return Event(kind, message, name.app, name.revision)


def _not_started(action: Action, plan: Plan) -> tuple[int, ...]:
    """The replicas that do not start because ``action`` failed; preparing is for all of them."""
    match action:
        case Prepare():
            return tuple(other.want.name.replica for other in plan.actions if isinstance(other, Start))
        case Start(want):
            return (want.name.replica,)
        case _:
            return ()


def _seen(action: Stop | Remove | Resume | Rename) -> Observed:
    return action.seen

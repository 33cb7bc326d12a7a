"""Carries out a plan, step by step; decides nothing.

Between steps it looks whether the plan still speaks of the newest revision; fetching, which may take long, is
given up in the middle as soon as it does not; so are hooks before and after a start. Every action leaves an event that says why.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar, assert_never

from msgspec import Struct
from msgspec.structs import replace

from boreas_agent import hooks
from boreas_agent.checking import LONGEST_TAIL
from boreas_agent.drivers.base import Driver
from boreas_agent.errors import BoreasError, HookFailed, Missing, Terminal, Transient, Unavailable
from boreas_agent.hooking import Hooking, Tell
from boreas_agent.model import (
    Action,
    Check,
    Drained,
    Event,
    Executed,
    Exit,
    Head,
    Instance,
    InstanceName,
    Plan,
    PostStart,
    Prepare,
    PreStart,
    Reload,
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


class Failure(Struct, frozen=True):
    """An action that did not work: the replicas that cannot start for it (none: another matter), and why."""

    replicas: tuple[int, ...]
    event: Event
    error: BoreasError

    @property
    def hopeless(self) -> bool:
        """Waiting does not help."""
        return isinstance(self.error, Terminal)

    @property
    def permanent(self) -> bool:
        """What asks for it is at fault, as far as anybody can tell now."""
        return isinstance(self.error, Terminal | Missing | HookFailed) and bool(self.replicas)

    @property
    def unanswered(self) -> bool:
        """It says nothing about the app."""
        return isinstance(self.error, Unavailable)


@dataclass(slots=True)
class Done:
    """What was done. ``answers``: of checks. ``superseded``: the rest was dropped because a newer revision came.

    ``hooked``: as in a head, what is new.
    """

    events: list[Event] = field(default_factory=list)
    exits: list[tuple[InstanceName, Exit]] = field(default_factory=list)
    answers: list[tuple[InstanceName, Executed]] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    superseded: bool = False
    hooked: dict[str, str] = field(default_factory=dict)

    def add(self, other: Done) -> None:
        """Append what was done after."""
        self.events += other.events
        self.exits += other.exits
        self.answers += other.answers
        self.failures = other.failures
        self.superseded = other.superseded
        self.hooked |= other.hooked


class _Task(Struct, frozen=True):
    """What a plan is carried out for, and what came of it so far."""

    plan: Plan
    head: Head
    tell: Tell
    done: Done


class _Superseded(Exception):
    """The action was given up for a newer revision."""


class Executor:
    """Needs the drivers to act, the store to know the newest revision, and how long something may take before a start.

    It tells of what must be on record before it goes on: that fetching began, and that the ``pre_start`` hook has succeeded.
    """

    def __init__(
        self,
        driver: Callable[[str], Driver],
        desired: Desired,
        fetching: Callable[[Head, Instance], Awaitable[None]],
        pre_started: Callable[[Head, Event], Awaitable[None]],
        patience: Callable[[Head], float | None],
    ) -> None:
        self._driver = driver
        self._desired = desired
        self._fetching = fetching
        self._pre_started = pre_started
        self._patience = patience
        self._hooking = Hooking()

    async def carry_out(self, plan: Plan, head: Head, tell: Tell, drained: Drained | None, fetched: Callable[[], None]) -> Done:
        """Run the steps in order; the first step with a failure is the last one. ``drained``: what the plan was made for.

        ``tell`` is told what goes on, where that takes long; ``fetched`` is called before steps for which everything is here.
        """
        done = Done()
        for step in plan.steps:
            if self._superseded(head) or self._desired.drained != drained:
                done.superseded = True
                break
            if not any(isinstance(action, Prepare) for action in step):
                fetched()
            await self._step(step, _Task(plan, head, tell, done))
            if done.failures or done.superseded:
                break
        return done

    async def _step(self, step: tuple[Action, ...], task: _Task) -> None:
        if len(step) == 1:
            await self._guarded(step[0], task)
            return
        results = await asyncio.gather(*(self._guarded(action, task) for action in step), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def _guarded(self, action: Action, task: _Task) -> None:
        """One action; what it raises on purpose becomes a failure with an event."""
        try:
            await self._do(action, task)
        except _Superseded:
            task.done.superseded = True
        except BoreasError as error:
            # A driver that cannot answer says nothing about the app: it is asked again, and no attempt is counted.
            replicas = () if isinstance(error, Unavailable) else _not_started(action, task.plan)
            event = _event(f"{type(action).__name__}Failed", action, str(error))
            task.done.failures.append(Failure(replicas, event, error))

    async def _do(self, action: Action, task: _Task) -> None:  # noqa: PLR0912  # one for each kind of action
        head, done = task.head, task.done
        match action:
            case Prepare(want, cause):
                driver = self._driver(want.pkg.type)
                if not await driver.prepared(want):
                    await self._fetching(head, want)
                    await self._unless_superseded(head, _prepare(driver, want, self._patience(head)))
                    done.events.append(_event("Prepared", action, f"everything for {want.name} is here: {cause}"))
            case PreStart():
                await self._unless_superseded(head, self._pre_start(action, task))
            case Check():
                done.answers.append((action.want.name, await self._unless_superseded(head, self._check(action))))
            case Start(want, after, cause):
                await self._driver(want.pkg.type).start(want, after)
                done.events.append(_event("Started", action, f"started {want.name}: {cause}"))
            case PostStart():
                await self._unless_superseded(head, self._post_start(action, task))
            case Stop(seen, signal, grace, cause):
                await self._pre_stop(action, task)
                # Not given up for a newer revision: once the signal is out, it must not count as running for anybody.
                ended = await self._driver(seen.kind).stop(seen, signal, grace)
                if ended is not None:
                    done.exits.append((seen.name, replace(ended, reason=f"stopped: {cause}")))
                done.events.append(_event("Stopped", action, f"stopped {seen.name}: {cause}"))
            case Reload(seen, want, signals, cause):
                if await self._driver(seen.kind).reload(seen, want, signals):
                    told = f" and sent it {' and '.join(signals)}" if signals else ""
                    done.events.append(_event("Reloaded", action, f"wrote the files of {seen.name} anew{told}: {cause}"))
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

    async def _check(self, action: Check) -> Executed:
        answer = await self._driver(action.want.pkg.type).check(action.want, action.seconds)
        if answer.code is None:
            raise Transient(_unanswered(action.want, answer))
        return answer

    # --- hooks ------------------------------------------------------------------------------------

    async def _pre_start(self, action: PreStart, task: _Task) -> None:
        want = action.want
        await self._hooking.pre_start(self._driver(want.pkg.type), action, self._patience(task.head), task.tell)
        message = f"the pre_start hook of revision {want.name.revision} ({want.version}) succeeded"
        await self._pre_started(task.head, _event("PreStartSucceeded", action, message))

    async def _post_start(self, action: PostStart, task: _Task) -> None:
        seen = action.seen
        why = await self._hooking.post_start(self._driver(seen.kind), action, task.tell)
        if why is None:
            return  # how the run ended will be told
        task.done.hooked[hooks.key_of(seen)] = why
        kind = "PostStartFailed" if why else "PostStartSucceeded"
        task.done.events.append(_event(kind, action, f"{seen.name}: {why or 'post_start hook succeeded'}"))

    async def _pre_stop(self, action: Stop, task: _Task) -> None:
        seen, hook = action.seen, action.pre_stop
        if hook is None:
            return
        why = await self._hooking.pre_stop(self._driver(seen.kind), seen, hook, task.tell)
        kind, words = ("PreStopFailed", f"failed: {why}; it is stopped all the same") if why else ("PreStopSucceeded", "succeeded")
        task.done.events.append(_event(kind, action, f"{seen.name}: pre_stop hook {words}"))

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


async def _prepare(driver: Driver, want: Instance, seconds: float | None) -> None:
    try:
        async with asyncio.timeout(seconds):
            await driver.prepare(want)
    except TimeoutError:
        raise Transient(f"cannot fetch what {want.name} needs: it was not here by the deadline of its rollout") from None


def _unanswered(want: Instance, answer: Executed) -> str:
    """Neither yes nor no: it could not be executed, or was killed, or took too long."""
    tail = answer.tail(LONGEST_TAIL)
    return f"cannot ask the check of {want.name}: {answer.problem}" + (f": {tail}" if tail else "")


def _event(kind: str, action: Action, message: str) -> Event:
    name = action.want.name if isinstance(action, Prepare | PreStart | Check | Start) else action.seen.name
    return Event(kind, message, name.app, name.revision)


def _not_started(action: Action, plan: Plan) -> tuple[int, ...]:
    """The replicas that do not start because ``action`` failed; preparing is for all of them."""
    match action:
        case Prepare() | PreStart():
            starts = (other.want.name.replica for other in plan.actions if isinstance(other, Start | Reload))
            return tuple(sorted(plan.held.union(starts)))
        case Check(want) | Start(want) | Reload(_, want):
            return (want.name.replica,)
        case _:
            return ()
